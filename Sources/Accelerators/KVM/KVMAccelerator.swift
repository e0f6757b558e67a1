// SPDX-License-Identifier: Apache-2.0
import CKVM
import Glibc
import GuestMemory
import HostSystem
import Logging
import Machine

/// vCPUs by the host's KVM: a thread each, interrupt controllers in the kernel, doorbells as ioeventfds, message
/// interrupts as irqfds. The application processors wait for INIT and SIPI from the guest, as on a PC.
public final class KVMAccelerator: VCPUGroup, DoorbellObserver, @unchecked Sendable {
  /// Called, on a vCPU's thread, when a guest cannot go on; the caller ends the machine. The text is one line.
  public var onFault: (@Sendable (String) -> Void)?
  /// Called, on a vCPU's thread, when the guest shuts a processor down (triple fault): a PC resets then.
  public var onTripleFault: (@Sendable () -> Void)?

  private let machine: Machine
  private let virtualMachine: KVMVirtualMachine
  private let controller: KVMInterruptController
  private let processors: [KVMProcessor]
  private let logger = Logger(label: "kvm")

  /// Asks the host: makes a machine and a processor, and takes them down again.
  public static func probe() -> KVMAvailability {
    if access("/dev/kvm", F_OK) != 0 { return .unusable("there is no /dev/kvm") }
    if access("/dev/kvm", R_OK | W_OK) != 0 {
      return .unusable("/dev/kvm may not be opened by this user (join the group kvm)")
    }
    do {
      let virtualMachine = try KVMVirtualMachine()
      guard virtualMachine.has(KVM_CAP_IRQCHIP), virtualMachine.has(KVM_CAP_USER_MEMORY) else {
        return .unusable("/dev/kvm lacks interrupt controllers or user memory")
      }
      _ = try virtualMachine.makeProcessor(0)
      return .usable
    } catch let error as KVMError {
      return .unusable(error.description)
    } catch {
      return .unusable("/dev/kvm: \(error)")
    }
  }

  /// Makes the virtual machine, shows it the machine's RAM, and becomes the machine's interrupt controller.
  public init(machine: Machine, processorCount: Int) throws(KVMError) {
    self.machine = machine
    virtualMachine = try KVMVirtualMachine()
    controller = KVMInterruptController(machine: virtualMachine)
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
    machine.interrupts = controller
    machine.doorbells.setObserver(self)
    Self.installKickHandler()
  }

  /// Sets processor 0 to the entry point of a PVH kernel; call before `start`.
  public func boot(entry: UInt32, startInfo: UInt64) throws(KVMError) {
    do {
      try processors[0].setPVHState(entry: entry, startInfo: startInfo)
    } catch {
      throw KVMError("cannot set the first processor's state (\(error.operation))", error)
    }
  }

  /// The kick only has to interrupt KVM_RUN; without a handler it would end the process.
  private static func installKickHandler() {
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in }
    sigaction(KVMProcessor.kickSignal, &action, nil)
  }

  // MARK: VCPUGroup

  /// Starts every vCPU's thread; all but the first wait in the kernel for INIT and SIPI.
  public func start() throws(SystemError) {
    for processor in processors {
      try processor.start { [self] ending in
        switch ending {
        case .stopped: break
        case .shutdown: onTripleFault?()
        case .failed(let what): onFault?("processor \(processor.index): \(what)")
        }
      }
    }
  }

  /// Asks every vCPU to leave the guest. Any thread; any number of times.
  public func requestStop() { processors.forEach { $0.requestStop() } }

  /// Waits for every vCPU's thread.
  public func join() { processors.forEach { $0.join() } }

  // MARK: DoorbellObserver

  /// Registers an ioeventfd. Where KVM refuses, the write exits and the device rings its own bell.
  public func doorbellAdded(_ doorbell: Doorbell) { change(doorbell, flags: 0) }

  /// Takes an ioeventfd back.
  public func doorbellRemoved(_ doorbell: Doorbell) { change(doorbell, flags: Self.deassign) }

  private static let deassign: UInt32 = 1 << 2

  private func change(_ doorbell: Doorbell, flags: UInt32) {
    var request = kvm_ioeventfd()
    request.addr = doorbell.address
    request.len = UInt32(doorbell.width)
    request.fd = doorbell.event.number
    request.flags = flags
    do {
      try KVMCall.structure(virtualMachine.machine.number, ckvm_IOEVENTFD, &request, "KVM_IOEVENTFD")
    } catch {
      logger.warning("a doorbell stays an exit: \(error)")
    }
  }
}
