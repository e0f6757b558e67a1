// SPDX-License-Identifier: Apache-2.0
import CKVM
import CLinux
import Glibc
import HostSystem
import Machine
import Synchronization

/// One vCPU: its descriptor, the run structure that it shares with the kernel, and the thread that runs it.
final class KVMProcessor: @unchecked Sendable {
  /// The signal that ends a KVM_RUN from another thread. Its handler does nothing: being interrupted is all it is for.
  private static let kickSignal = SIGUSR1

  /// Why a vCPU left its loop for good.
  enum Ending: Sendable {
    /// It was asked to.
    case stopped
    /// The guest cannot go on; what happened, as part of a line.
    case failed(String)
    /// The guest shut the processor down (triple fault).
    case shutdown
  }

  private enum Exit {
    static let io: UInt32 = 2
    static let halt: UInt32 = 5
    static let mmio: UInt32 = 6
    static let interruptWindow: UInt32 = 7
    static let shutdown: UInt32 = 8
    static let failedEntry: UInt32 = 9
    static let interrupted: UInt32 = 10
    static let internalError: UInt32 = 17
    /// `kvm_run.io.direction` of a write.
    static let ioOut: UInt8 = 1
    /// `kvm_run.internal.suberror` where KVM met an instruction that it does not know.
    static let emulation: UInt32 = 1
  }

  /// The widest device-memory access that the run structure can hold.
  private static let accessBytesMax: UInt32 = 8

  let index: Int
  let descriptor: OwnedDescriptor
  private let mapping: Mapping
  private let run: UnsafeMutablePointer<kvm_run>
  // It outlives the thread, which is the only one to use it, so that no exit counts a reference.
  private unowned(unsafe) let machine: Machine
  private var thread: HostThread?
  // The thread's id while it may be in the guest; 0 before and after. Written by the thread, read by requestStop().
  private let threadID = Atomic<Int32>(0)
  // Set by requestStop() before the kick, tested by the thread before each KVM_RUN.
  private let stopping = Atomic<Bool>(false)

  init(_ index: Int, of virtualMachine: KVMVirtualMachine, machine: Machine) throws(SystemError) {
    self.index = index
    self.machine = machine
    descriptor = try virtualMachine.makeProcessor(index)
    mapping = try Mapping(descriptor: descriptor.number, byteCount: virtualMachine.runBytes)
    run = mapping.base.assumingMemoryBound(to: kvm_run.self)
    try setCPUID(virtualMachine)
  }

  // MARK: Thread

  /// Makes the kick harmless to the process; once is enough, more often does no harm.
  static func installKickHandler() {
    var action = sigaction()
    // No SA_RESTART: the call that is interrupted has to return.
    action.__sigaction_handler.sa_handler = { _ in }
    sigaction(kickSignal, &action, nil)
  }

  /// Starts the thread; `ended` is called on it once, when the vCPU has left its loop.
  func start(ended: @escaping @Sendable (Ending) -> Void) throws(SystemError) {
    thread = try HostThread(name: "vcpu-\(index)") { [self] in
      Self.unblockKick()
      // Pairs with requestStop(): it reads this after it has set `stopping`, and the loop reads that after this.
      threadID.store(HostThread.currentIdentifier, ordering: .sequentiallyConsistent)
      machine.gate.enter()
      let ending = loop()
      machine.gate.leave()
      threadID.store(0, ordering: .sequentiallyConsistent)
      ended(ending)
    }
  }

  /// A process that was started with the signal blocked would pass that on to its threads.
  private static func unblockKick() {
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, kickSignal)
    pthread_sigmask(SIG_UNBLOCK, &signals, nil)
  }

  /// Asks the vCPU to leave its loop. Any thread.
  func requestStop() {
    stopping.store(true, ordering: .sequentiallyConsistent)
    kick()
  }

  /// Makes the thread look at `stopping` and at the machine's gate, one of which has changed. Any thread.
  ///
  /// No kick is lost, wherever the thread is. Before it has said its id, it will look by itself. Outside KVM_RUN, the next
  /// KVM_RUN sees `immediate_exit` and returns at once; only the thread clears that, and looks afterwards. Inside KVM_RUN,
  /// past its look at `immediate_exit`, the signal ends it, in the guest or in a sleep (HLT, waiting for SIPI) alike.
  func kick() {
    ckvm_set_immediate_exit(run, 1)
    let thread = threadID.load(ordering: .sequentiallyConsistent)
    // The thread may end meanwhile; then nobody has this id, or another thread of ours is interrupted for nothing.
    if thread != 0 { _ = clinux_tgkill(thread, Self.kickSignal) }
  }

  func join() {
    thread?.join()
    thread = nil
  }

  private func loop() -> Ending {
    // Pairs with the store in requestStop().
    while !stopping.load(ordering: .sequentiallyConsistent) {
      // Between two KVM_RUNs nothing of the guest's runs.
      if machine.gate.isClosed && !machine.gate.pass() { continue }
      let result = ckvm_ioctl(descriptor.number, ckvm_RUN, 0)
      if result == -EINTR {
        endKick()
        continue
      }
      // An application processor has had its INIT or SIPI.
      if result == -EAGAIN { continue }
      if result < 0 { return .failed("KVM_RUN: \(SystemError.text(of: -result))") }
      if let ending = handleExit() { return ending }
    }
    return .stopped
  }

  /// A kick has done its work.
  private func endKick() {
    ckvm_set_immediate_exit(run, 0)
    // Pairs with requestStop() and with the closing of the gate, which come before their kick: either the loop sees the
    // change now, or their `immediate_exit` comes after this one.
    clinux_fence_full()
  }

  // MARK: Exits

  private func handleExit() -> Ending? {
    switch run.pointee.exit_reason {
    case Exit.io:
      handlePort()
      return nil
    case Exit.mmio:
      handleMemory()
      return nil
    case Exit.interrupted, Exit.interruptWindow, Exit.halt:
      return nil
    case Exit.shutdown:
      return .shutdown
    case Exit.failedEntry:
      let reason = String(run.pointee.fail_entry.hardware_entry_failure_reason, radix: 16)
      return .failed("the host's processor refuses the guest's state (reason 0x\(reason)) at \(whereItIs())")
    case Exit.internalError where run.pointee.internal.suberror == Exit.emulation:
      return .failed("KVM cannot emulate the instruction at \(whereItIs())")
    case Exit.internalError:
      return .failed("KVM's internal error \(run.pointee.internal.suberror) at \(whereItIs())")
    case let reason:
      return .failed("KVM_RUN returned for reason \(reason), which no guest of ours can cause, at \(whereItIs())")
    }
  }

  /// A port access, `count` times for a string instruction; the data lies in the run structure.
  private func handlePort() {
    let io = run.pointee.io
    let width = Int(io.size)
    var data = mapping.base + Int(io.data_offset)
    for _ in 0..<io.count {
      if io.direction == Exit.ioOut {
        var value: UInt32 = 0
        memcpy(&value, data, min(width, 4))
        machine.exitPortWrite(io.port, width: width, value: value)
      } else {
        var value = machine.exitPortRead(io.port, width: width)
        memcpy(data, &value, min(width, 4))
      }
      data += width
    }
  }

  /// A device memory access of 1 to 8 bytes; those that are no power of two go byte by byte.
  private func handleMemory() {
    var mmio = run.pointee.mmio
    let length = Int(min(mmio.len, Self.accessBytesMax))
    let step = length & (length - 1) == 0 ? length : 1
    withUnsafeMutableBytes(of: &mmio.data) { bytes in
      var offset = 0
      while offset < length {
        let address = mmio.phys_addr &+ UInt64(offset)
        var value: UInt64 = 0
        if mmio.is_write != 0 {
          memcpy(&value, bytes.baseAddress! + offset, step)
          machine.exitMemoryWrite(address, width: step, value: value)
        } else {
          value = machine.exitMemoryRead(address, width: step)
          memcpy(bytes.baseAddress! + offset, &value, step)
        }
        offset += step
      }
    }
    if mmio.is_write == 0 { run.pointee.mmio.data = mmio.data }
  }

  // MARK: Errors

  /// The instruction pointer, and the bytes there where they are in RAM; for the text of an error.
  private func whereItIs() -> String {
    let instructionBytesMax: UInt64 = 15
    var registers = kvm_regs()
    guard (try? KVMCall.structure(descriptor.number, ckvm_GET_REGS, &registers, "KVM_GET_REGS")) != nil else {
      return "an unknown address"
    }
    let place = "0x" + String(registers.rip, radix: 16)
    var translation = kvm_translation()
    translation.linear_address = registers.rip
    guard (try? KVMCall.structure(descriptor.number, ckvm_TRANSLATE, &translation, "KVM_TRANSLATE")) != nil,
      translation.valid != 0,
      let code = machine.memory.pointer(at: translation.physical_address, byteCount: instructionBytesMax)
    else { return place }
    let bytes = UnsafeRawBufferPointer(start: code, count: Int(instructionBytesMax)).map { byte in
      (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }
    return "\(place) (the bytes there: \(bytes.joined(separator: " ")))"
  }
}
