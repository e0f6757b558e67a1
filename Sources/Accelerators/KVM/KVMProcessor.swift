// SPDX-License-Identifier: Apache-2.0
import CKVM
import CLinux
import Glibc
import HostSystem
import Machine
import Synchronization

/// One vCPU: its descriptor, the run structure that it shares with the kernel, and the thread that runs it.
final class KVMProcessor: @unchecked Sendable {
  /// The signal that ends a KVM_RUN from another thread. Its handler does nothing but set `immediate_exit`.
  static let kickSignal = SIGUSR1

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
    static let systemEvent: UInt32 = 24
    /// `kvm_run.io.direction` of a write.
    static let ioOut: UInt8 = 1
  }

  let index: Int
  let descriptor: OwnedDescriptor
  private let mapping: Mapping
  private let run: UnsafeMutablePointer<kvm_run>
  private unowned let machine: Machine
  private var thread: HostThread?
  // The thread's id while it may be in the guest; 0 before and after. Written by the thread, read by `kick`.
  private let threadID = Atomic<Int32>(0)
  // Set by `requestStop` before the kick, tested by the thread before each KVM_RUN.
  private let stopping = Atomic<Bool>(false)

  init(_ index: Int, of virtualMachine: KVMVirtualMachine, machine: Machine) throws(SystemError) {
    self.index = index
    self.machine = machine
    descriptor = try virtualMachine.makeProcessor(index)
    mapping = try Mapping(descriptor: descriptor.number, byteCount: virtualMachine.runBytes)
    run = mapping.base.assumingMemoryBound(to: kvm_run.self)
    try setCPUID(virtualMachine)
  }

  /// Shows the guest what the host's KVM supports, with this processor's APIC number in it.
  private func setCPUID(_ virtualMachine: KVMVirtualMachine) throws(SystemError) {
    let entriesMax: UInt32 = 256
    guard let table = ckvm_cpuid_make(entriesMax) else { throw SystemError("calloc", code: ENOMEM) }
    defer { free(table) }
    try KVMCall.integer(
      virtualMachine.system.number, ckvm_GET_SUPPORTED_CPUID, UInt(bitPattern: table), "KVM_GET_SUPPORTED_CPUID")
    let entries = ckvm_cpuid_entries(table)!
    for position in 0..<Int(table.pointee.nent) {
      switch entries[position].function {
      // Leaf 1: initial APIC number in EBX 31:24. Leaf 0xb: x2APIC number in EDX (Intel SDM 2A, CPUID).
      case 1: entries[position].ebx = entries[position].ebx & 0x00ff_ffff | UInt32(index) << 24
      case 0xb: entries[position].edx = UInt32(index)
      default: break
      }
    }
    try KVMCall.integer(descriptor.number, ckvm_SET_CPUID2, UInt(bitPattern: table), "KVM_SET_CPUID2")
  }

  /// Puts the processor where PVH wants it (Xen's pvh.rst): 32-bit protected mode, flat segments, no paging, interrupts
  /// off, the start info's address in EBX.
  func setPVHState(entry: UInt32, startInfo: UInt64) throws(SystemError) {
    var system = kvm_sregs()
    try KVMCall.structure(descriptor.number, ckvm_GET_SREGS, &system, "KVM_GET_SREGS")
    func flat(_ selector: UInt16, type: UInt8) -> kvm_segment {
      var segment = kvm_segment()
      segment.base = 0
      segment.limit = 0xffff_ffff
      segment.selector = selector
      segment.type = type
      segment.present = 1
      segment.s = 1
      segment.db = 1
      segment.g = 1
      return segment
    }
    system.cs = flat(8, type: 0xb)
    let data = flat(16, type: 3)
    system.ds = data
    system.es = data
    system.fs = data
    system.gs = data
    system.ss = data
    var task = kvm_segment()
    task.limit = 0x67
    task.selector = 24
    task.type = 0xb
    task.present = 1
    system.tr = task
    // Protection on, extension type bit as hardware has it; paging and its helpers off.
    system.cr0 = 0x11
    system.cr3 = 0
    system.cr4 = 0
    system.efer = 0
    try KVMCall.structure(descriptor.number, ckvm_SET_SREGS, &system, "KVM_SET_SREGS")
    var registers = kvm_regs()
    registers.rip = UInt64(entry)
    registers.rbx = startInfo
    registers.rflags = 2
    try KVMCall.structure(descriptor.number, ckvm_SET_REGS, &registers, "KVM_SET_REGS")
  }

  // MARK: Thread

  /// Starts the thread; `ended` is called on it once, when the vCPU has left its loop.
  func start(ended: @escaping @Sendable (Ending) -> Void) throws(SystemError) {
    thread = try HostThread(name: "vcpu-\(index)") { [self] in
      threadID.store(HostThread.currentIdentifier, ordering: .sequentiallyConsistent)
      let ending = loop()
      threadID.store(0, ordering: .sequentiallyConsistent)
      ended(ending)
    }
  }

  /// Asks the vCPU to leave its loop. Any thread.
  ///
  /// No kick is lost: `immediate_exit` makes a KVM_RUN that begins later return at once, and the signal ends one that is
  /// under way; nothing clears `immediate_exit` any more.
  func requestStop() {
    stopping.store(true, ordering: .sequentiallyConsistent)
    ckvm_set_immediate_exit(run, 1)
    let thread = threadID.load(ordering: .sequentiallyConsistent)
    if thread != 0 { _ = clinux_tgkill(thread, Self.kickSignal) }
  }

  func join() {
    thread?.join()
    thread = nil
  }

  private func loop() -> Ending {
    while !stopping.load(ordering: .sequentiallyConsistent) {
      let result = ckvm_ioctl(descriptor.number, ckvm_RUN, 0)
      if result == -EINTR || result == -EAGAIN { continue }
      if result < 0 { return .failed("KVM_RUN: \(SystemError.text(of: -result))") }
      if let ending = handleExit() { return ending }
    }
    return .stopped
  }

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
      return .failed(
        "the processor refuses the guest's state (\(run.pointee.fail_entry.hardware_entry_failure_reason))")
    case Exit.internalError:
      return .failed(
        "KVM cannot emulate an instruction (suberror \(run.pointee.internal.suberror)) at \(instructionPointer())")
    case let reason:
      return .failed("an exit that nobody handles (reason \(reason)) at \(instructionPointer())")
    }
  }

  private func instructionPointer() -> String {
    var registers = kvm_regs()
    guard (try? KVMCall.structure(descriptor.number, ckvm_GET_REGS, &registers, "KVM_GET_REGS")) != nil else {
      return "an unknown address"
    }
    return "0x" + String(registers.rip, radix: 16)
  }

  // MARK: Exits

  /// A port access, `count` times for a string instruction; the data lies in the run structure.
  private func handlePort() {
    let io = run.pointee.io
    var data = mapping.base + Int(io.data_offset)
    for _ in 0..<io.count {
      if io.direction == Exit.ioOut {
        machine.exitPortWrite(io.port, width: Int(io.size), value: load(data, Int(io.size)))
      } else {
        store(machine.exitPortRead(io.port, width: Int(io.size)), data, Int(io.size))
      }
      data += Int(io.size)
    }
  }

  private func load(_ data: UnsafeRawPointer, _ width: Int) -> UInt32 {
    var value: UInt32 = 0
    memcpy(&value, data, min(width, 4))
    return value
  }

  private func store(_ value: UInt32, _ data: UnsafeMutableRawPointer, _ width: Int) {
    var value = value
    memcpy(data, &value, min(width, 4))
  }

  /// A device memory access of 1 to 8 bytes; odd lengths go byte by byte.
  private func handleMemory() {
    var mmio = run.pointee.mmio
    let length = Int(min(mmio.len, 8))
    let step = length == 1 || length == 2 || length == 4 || length == 8 ? length : 1
    withUnsafeMutableBytes(of: &mmio.data) { bytes in
      for offset in stride(from: 0, to: length, by: step) {
        let address = mmio.phys_addr &+ UInt64(offset)
        var value: UInt64 = 0
        if mmio.is_write != 0 {
          memcpy(&value, bytes.baseAddress! + offset, step)
          machine.exitMemoryWrite(address, width: step, value: value)
        } else {
          value = machine.exitMemoryRead(address, width: step)
          memcpy(bytes.baseAddress! + offset, &value, step)
        }
      }
    }
    if mmio.is_write == 0 { run.pointee.mmio.data = mmio.data }
  }
}
