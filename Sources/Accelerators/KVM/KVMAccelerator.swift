// SPDX-License-Identifier: Apache-2.0
import CKVM
import Glibc
import GuestMemory
import HostSystem
import Machine

/// vCPUs by the host's KVM: a thread each, interrupt controllers in the kernel, doorbells as ioeventfds, message
/// interrupts as irqfds. The application processors wait for INIT and SIPI from the guest, as on a PC.
///
/// The machine outlives the accelerator's threads. Main thread, except where a function says otherwise.
public final class KVMAccelerator: VCPUGroup, DoorbellObserver, @unchecked Sendable {
  /// Called, on a vCPU's thread, when a guest cannot go on; the caller ends the machine. The text is one line.
  /// Set before `start`; let go of when `join` returns.
  public var onFault: (@Sendable (String) -> Void)?
  /// Called, on a vCPU's thread, when the guest shuts a processor down (triple fault): a PC resets then.
  /// Set before `start`; let go of when `join` returns.
  public var onTripleFault: (@Sendable () -> Void)?

  // Held because KVM reaches the memory behind it; the machine itself is not, as it owns this object.
  private let memory: GuestMemory
  private let doorbells: KVMDoorbells
  private let processors: [KVMProcessor]

  /// Asks the host: makes a machine and a processor, and takes them down again.
  public static func probe() -> KVMAvailability {
    if access("/dev/kvm", F_OK) != 0 { return .unusable("there is no /dev/kvm") }
    if access("/dev/kvm", R_OK | W_OK) != 0 {
      return .unusable("/dev/kvm may not be opened by this user (join the group kvm)")
    }
    do throws(KVMError) {
      let virtualMachine = try KVMVirtualMachine()
      do throws(SystemError) {
        _ = try virtualMachine.makeProcessor(0)
      } catch {
        throw KVMError("cannot make a processor", error)
      }
      return .usable
    } catch {
      return .unusable(error.description)
    }
  }

  /// Makes the virtual machine, shows it the machine's RAM, and becomes the machine's interrupt controller and the
  /// observer of its doorbells.
  /// - Throws: what this host's KVM lacks or refuses, as one line.
  public init(machine: Machine, processorCount: Int) throws(KVMError) {
    let virtualMachine = try KVMVirtualMachine()
    guard (1...virtualMachine.processorsMax).contains(processorCount) else {
      throw KVMError("a machine here has 1 to \(virtualMachine.processorsMax) processors, not \(processorCount)")
    }
    var made: [KVMProcessor] = []
    do throws(SystemError) {
      for (slot, region) in machine.memory.regions.enumerated() {
        try virtualMachine.setMemory(
          slot: UInt32(slot), start: region.start, byteCount: region.byteCount, host: region.host)
      }
      for index in 0..<processorCount {
        made.append(try KVMProcessor(index, of: virtualMachine, machine: machine))
      }
    } catch {
      throw KVMError("cannot make the guest's memory and processors (\(error.operation))", error)
    }
    processors = made
    memory = machine.memory
    doorbells = KVMDoorbells(of: virtualMachine)
    machine.interrupts = KVMInterruptController(machine: virtualMachine)
    machine.doorbells.setObserver(self)
    KVMProcessor.installKickHandler()
  }

  /// Sets processor 0 to the entry point of a PVH kernel; call before `start`.
  /// - Throws: what KVM refuses, as one line.
  public func boot(entry: UInt32, startInfo: UInt64) throws(KVMError) {
    do {
      try processors[0].setPVHState(entry: entry, startInfo: startInfo)
    } catch {
      throw KVMError("cannot set the first processor's state (\(error.operation))", error)
    }
  }

  // MARK: VCPUGroup

  /// Starts every vCPU's thread; all but the first wait in the kernel for INIT and SIPI.
  /// - Throws: where the host has no thread left; no vCPU runs then.
  public func start() throws(SystemError) {
    do throws(SystemError) {
      for processor in processors {
        try processor.start { [self] ending in
          switch ending {
          case .stopped: break
          case .shutdown: onTripleFault?()
          case .failed(let what): onFault?("processor \(processor.index): \(what)")
          }
        }
      }
    } catch {
      requestStop()
      join()
      throw error
    }
  }

  /// Makes every vCPU leave the guest's code for a look at the machine's gate. Any thread; any number of times.
  public func kick() { processors.forEach { $0.kick() } }

  /// Asks every vCPU to leave the guest. Any thread; any number of times.
  public func requestStop() { processors.forEach { $0.requestStop() } }

  /// Waits for every vCPU's thread.
  public func join() {
    processors.forEach { $0.join() }
    // They usually hold the machine, which holds this object.
    onFault = nil
    onTripleFault = nil
  }

  // MARK: DoorbellObserver

  /// Registers an ioeventfd. Where KVM refuses, the write exits and the device rings its own bell.
  public func doorbellAdded(_ doorbell: Doorbell) { doorbells.add(doorbell) }

  /// Takes an ioeventfd back.
  public func doorbellRemoved(_ doorbell: Doorbell) { doorbells.remove(doorbell) }
}
