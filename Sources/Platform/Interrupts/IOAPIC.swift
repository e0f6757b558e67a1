// SPDX-License-Identifier: Apache-2.0
import Machine

/// The I/O APIC of a PC (Intel 82093AA data sheet), for accelerators that have none of their own: 24 inputs, each with an
/// entry that says which message its interrupt becomes. Machine lock held for everything.
///
/// An input is asserted or not; polarity bits are kept and have no effect. There is no bus to local APICs, so the end of
/// an interrupt is told by a write to the EOI register (version 0x20), or by `endOfInterrupt`.
public final class IOAPIC: Device {
  /// Where a PC has it.
  public static let standardAddress: UInt64 = 0xfec0_0000
  /// Bytes that it answers in.
  public static let byteCount: UInt64 = 0x1000
  /// Inputs.
  public static let inputCount = 24

  /// Offsets in memory.
  private enum Window {
    static let select: UInt64 = 0x00
    static let data: UInt64 = 0x10
    static let endOfInterrupt: UInt64 = 0x40
  }

  /// Registers behind the select register.
  private enum Register {
    static let identification: UInt8 = 0x00
    static let version: UInt8 = 0x01
    static let arbitration: UInt8 = 0x02
    static let firstEntry: UInt8 = 0x10
  }

  private static let identificationMask: UInt32 = 0x0f00_0000
  private static let version: UInt32 = 0x20 | UInt32(inputCount - 1) << 16

  private var select: UInt8 = 0
  private var identification: UInt32 = 0
  private var entries = [RedirectionEntry](repeating: RedirectionEntry(), count: inputCount)
  private var levels = [Bool](repeating: false, count: inputCount)
  private let deliver: (MSIMessage) -> Void
  private lazy var registers = Registers(device: self)

  /// Makes one whose messages go to `deliver`.
  public init(deliver: @escaping (MSIMessage) -> Void) {
    self.deliver = deliver
    super.init(name: "ioapic")
  }

  public override func added(to machine: Machine) {
    machine.memorySpace.map(registers, at: Self.standardAddress, byteCount: Self.byteCount)
  }

  public override func shutdown() { machine?.memorySpace.unmap(registers) }

  public override func reset() {
    select = 0
    identification = 0
    entries = [RedirectionEntry](repeating: RedirectionEntry(), count: Self.inputCount)
  }

  // MARK: Inputs

  /// Sets an input's level; inputs that do not exist are ignored.
  public func setInput(_ input: Int, asserted: Bool) {
    guard levels.indices.contains(input), levels[input] != asserted else { return }
    levels[input] = asserted
    // A masked edge is lost (section 3.2.4, bit 16); a level is served when its entry is unmasked.
    if asserted { serve(input) }
  }

  /// An interrupt with this vector has been served: inputs that are still asserted send their message again.
  public func endOfInterrupt(vector: UInt8) {
    for input in entries.indices where entries[input].isLevel && entries[input].vector == vector {
      guard entries[input].awaitsEnd else { continue }
      entries[input].awaitsEnd = false
      if levels[input] { serve(input) }
    }
  }

  private func serve(_ input: Int) {
    let entry = entries[input]
    if entry.isMasked || entry.awaitsEnd { return }
    if entry.isLevel { entries[input].awaitsEnd = true }
    deliver(entry.message)
  }

  // MARK: Registers

  fileprivate func read(_ offset: UInt64) -> UInt32 {
    switch offset {
    case Window.select: UInt32(select)
    case Window.data: register
    default: 0
    }
  }

  private var register: UInt32 {
    switch select {
    case Register.identification, Register.arbitration: identification
    case Register.version: Self.version
    default: entryIndex.map { entries[$0.index].word(isUpper: $0.isUpper) } ?? 0
    }
  }

  private var entryIndex: (index: Int, isUpper: Bool)? {
    guard select >= Register.firstEntry else { return nil }
    let word = Int(select - Register.firstEntry)
    return word / 2 < Self.inputCount ? (word / 2, word % 2 == 1) : nil
  }

  fileprivate func write(_ offset: UInt64, _ value: UInt32) {
    switch offset {
    case Window.select: select = UInt8(truncatingIfNeeded: value)
    case Window.data: writeRegister(value)
    case Window.endOfInterrupt: endOfInterrupt(vector: UInt8(truncatingIfNeeded: value))
    default: break
    }
  }

  private func writeRegister(_ value: UInt32) {
    if select == Register.identification { identification = value & Self.identificationMask }
    guard let (index, isUpper) = entryIndex else { return }
    entries[index].set(value, isUpper: isUpper)
    if levels[index] && entries[index].isLevel { serve(index) }
  }

  private final class Registers: RegisterBlock {
    // The device owns this block.
    private unowned let device: IOAPIC
    init(device: IOAPIC) { self.device = device }

    /// Registers are read and written as 32 bits, aligned to 16 bytes (section 3.1).
    override func read(offset: UInt64, width: Int) -> UInt64 { width == 4 ? UInt64(device.read(offset)) : 0 }
    override func write(offset: UInt64, width: Int, value: UInt64) {
      if width == 4 { device.write(offset, UInt32(value)) }
    }
  }
}

/// One entry of the redirection table (82093AA data sheet, section 3.2.4).
struct RedirectionEntry: Equatable {
  private enum Bits {
    static let vector: UInt32 = 0xff
    static let deliveryMode: UInt32 = 0x700
    static let logical: UInt32 = 1 << 11
    static let awaitsEnd: UInt32 = 1 << 14
    static let level: UInt32 = 1 << 15
    static let mask: UInt32 = 1 << 16
    /// All but the delivery status and the remote IRR, which tell and are not written.
    static let writable: UInt32 = 0x1_afff
    static let destination: UInt32 = 0xff00_0000
  }

  private var lower = Bits.mask
  private var upper: UInt32 = 0

  var vector: UInt8 { UInt8(lower & Bits.vector) }
  var isLevel: Bool { lower & Bits.level != 0 }
  var isMasked: Bool { lower & Bits.mask != 0 }
  /// Remote IRR: the message of a level was sent, and its end has not been told.
  var awaitsEnd: Bool {
    get { lower & Bits.awaitsEnd != 0 }
    set { lower = newValue ? lower | Bits.awaitsEnd : lower & ~Bits.awaitsEnd }
  }

  func word(isUpper: Bool) -> UInt32 { isUpper ? upper : lower }

  mutating func set(_ value: UInt32, isUpper: Bool) {
    if isUpper {
      upper = value & Bits.destination
    } else {
      lower = lower & Bits.awaitsEnd | value & Bits.writable
      // Edges have no end to wait for; guests switch to them and back to forget one.
      if !isLevel { awaitsEnd = false }
    }
  }

  /// What the interrupt becomes (Intel SDM 3A, section 11.11): destination, its mode, delivery mode, trigger and vector.
  var message: MSIMessage {
    let isLogical: UInt64 = lower & Bits.logical != 0 ? 1 << 2 : 0
    let trigger: UInt32 = isLevel ? 1 << 15 | 1 << 14 : 0
    return MSIMessage(
      address: 0xfee0_0000 | UInt64(upper >> 24) << 12 | isLogical,
      data: trigger | lower & (Bits.deliveryMode | Bits.vector))
  }
}
