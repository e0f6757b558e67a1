// SPDX-License-Identifier: Apache-2.0
import Accelerators
import GuestMemory
import HostSystem
import Machine
import Testing

/// Whether this host's KVM works; tests on it are skipped otherwise.
let kvmWorks = KVMAccelerator.probe() == .usable

/// A machine on KVM with a guest of a few instructions.
final class KVMGuest {
  static let codeAddress: UInt32 = 0x10_0000
  /// A page that no test's code or tables use.
  static let scratch: UInt32 = 0x20_0000
  /// What a guest with interrupts writes to the device's last port when it takes them.
  static let isReady: UInt64 = 0xee

  let machine: Machine
  let accelerator: KVMAccelerator
  let ports: Recorder
  let registers: Recorder
  /// Ends of vCPUs that nobody asked for: the text, or "triple fault".
  let faults = Collected<String>()
  let faulted: Signal

  init(processorCount: Int = 1, _ code: (inout GuestCode) -> Void) throws {
    machine = try makeMachine()
    ports = try Recorder(machine)
    registers = try Recorder(machine)
    faulted = try Signal()
    machine.lock.withLock { [machine, ports, registers] in
      machine.portSpace.map(ports, at: UInt64(devicePort), byteCount: 16)
      machine.memorySpace.map(registers, at: deviceAddress, byteCount: 0x2000)
    }
    accelerator = try KVMAccelerator(machine: machine, processorCount: processorCount)
    accelerator.onFault = { [faults, faulted] text in
      faults.add(text)
      faulted.send()
    }
    accelerator.onTripleFault = { [faults, faulted] in
      faults.add("triple fault")
      faulted.send()
    }
    var guest = GuestCode()
    code(&guest)
    try machine.memory.write(guest.bytes, at: UInt64(Self.codeAddress))
    try accelerator.boot(entry: Self.codeAddress, startInfo: 0x1234_5678)
  }

  deinit {
    accelerator.requestStop()
    accelerator.join()
  }

  func start() throws { try accelerator.start() }

  /// Stops the guest, which has had no fault but those expected.
  func stop(expecting expected: (String) -> Bool = { _ in false }) {
    accelerator.requestStop()
    accelerator.join()
    #expect(faults.elements.filter { !expected($0) } == [])
  }

  /// Runs until the guest has made so many port accesses, and stops it.
  func run(untilPortAccesses count: Int) throws {
    try start()
    let isDone = ports.wait(count: count)
    stop()
    #expect(isDone, "the watchdog ended the guest")
  }

  func load<T: FixedWidthInteger>(_ type: T.Type, _ address: UInt32) throws -> T {
    try machine.memory.load(at: UInt64(address))
  }

  // MARK: Interrupts

  private static let segmentTable: UInt32 = 0x5000
  private static let segmentTablePointer: UInt32 = 0x5040
  private static let interruptTablePointer: UInt32 = 0x5048
  private static let interruptTable: UInt32 = 0x6000
  private static let handlers: UInt32 = 0x1_0000
  private static let handlerBytes: UInt32 = 64
  private static let stackEnd: UInt32 = 0x4000
  private static let haltLoop: UInt32 = 0x4800
  static let localAPIC: UInt32 = 0xfee0_0000

  /// Code that makes the processor take interrupts; each handler writes its vector to the device's first port.
  static func enableInterrupts(_ code: inout GuestCode) {
    code.set(.esp, stackEnd)
    code.loadSegmentTable(at: segmentTablePointer)
    code.loadInterruptTable(at: interruptTablePointer)
    // The old interrupt controllers, whose vectors are a PC's of 1981, are masked.
    code.out(0x21, width: 1, 0xff)
    code.out(0xa1, width: 1, 0xff)
    // Spurious vector 0xff, local APIC on.
    code.write32(localAPIC + 0xf0, 0x1ff)
    code.out(devicePort + 15, width: 1, UInt32(isReady))
  }

  /// Code that starts an application processor in real mode at `page` (below 1 MiB): INIT, then STARTUP twice, as the
  /// Intel SDM 3A §9.4.4 has it; a processor that runs ignores the second.
  static func startProcessor(_ processor: UInt32, at page: UInt32, _ code: inout GuestCode) {
    let command = localAPIC + 0x300
    // The sender's local APIC is on, as a kernel has it by then.
    code.write32(localAPIC + 0xf0, 0x1ff)
    code.write32(command + 0x10, processor << 24)
    code.write32(command, 0x4500)
    for _ in 0..<2 {
      code.delay(20_000)
      code.write32(command + 0x10, processor << 24)
      code.write32(command, 0x4600 | page >> 12)
    }
  }

  /// Writes the tables that `enableInterrupts` loads.
  func writeInterruptTables() throws {
    let memory = machine.memory
    // Null, flat 32-bit code, flat data, as the segments are that PVH enters with.
    for (index, descriptor) in [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff].enumerated() {
      try memory.store(UInt64(descriptor), at: UInt64(Self.segmentTable) + 8 * UInt64(index))
    }
    try memory.store(UInt16(23), at: UInt64(Self.segmentTablePointer))
    try memory.store(Self.segmentTable, at: UInt64(Self.segmentTablePointer) + 2)
    try memory.store(UInt16(256 * 8 - 1), at: UInt64(Self.interruptTablePointer))
    try memory.store(Self.interruptTable, at: UInt64(Self.interruptTablePointer) + 2)
    var loop = GuestCode()
    loop.haltForInterrupts()
    try memory.write(loop.bytes, at: UInt64(Self.haltLoop))
    for vector in UInt32(0)..<256 {
      let handler = Self.handlers + Self.handlerBytes * vector
      // A 32-bit interrupt gate: offset, selector 8, present.
      try memory.store(
        UInt64(handler & 0xffff) | 8 << 16 | 0x8e00 << 32 | UInt64(handler >> 16) << 48,
        at: UInt64(Self.interruptTable + 8 * vector))
      var code = GuestCode()
      code.out(devicePort, width: 1, vector)
      // The end of the interrupt. What was interrupted is the halt loop, so the handler begins that anew instead of
      // returning: a KVM that emulates every instruction may lack iret in this mode.
      code.write32(Self.localAPIC + 0xb0, 0)
      code.set(.esp, Self.stackEnd)
      code.jump(to: Self.haltLoop)
      precondition(code.bytes.count <= Int(Self.handlerBytes))
      try memory.write(code.bytes, at: UInt64(handler))
    }
  }

  /// A guest that takes interrupts, halting in between.
  static func withInterrupts(then more: (inout GuestCode) -> Void = { _ in }) throws -> KVMGuest {
    let guest = try KVMGuest { code in
      enableInterrupts(&code)
      more(&code)
      code.jump(to: haltLoop)
    }
    try guest.writeInterruptTables()
    return guest
  }

  /// Vectors that have arrived, in their order.
  var vectors: [UInt64] { ports.accesses.filter { $0.offset == 0 }.compactMap(\.value) }
}
