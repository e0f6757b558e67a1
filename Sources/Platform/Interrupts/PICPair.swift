// SPDX-License-Identifier: Apache-2.0
import Machine

/// The two 8259s of a PC, the second on input 2 of the first, and their edge and level registers (ICH9 data sheet,
/// sections 13.4 and 13.9.7), for accelerators that have none of their own. Machine lock held for everything.
public final class PICPair: Device {
  /// Inputs of both.
  public static let inputCount = 16
  private static let cascade = 2
  private static let portsPerChip: UInt64 = 2
  private static let chipPorts: [UInt64] = [0x20, 0xa0]
  private static let levelPort: UInt64 = 0x4d0
  /// Inputs that may follow a level: not the timer's, the keyboard's, the cascade's, the clock's and the coprocessor's.
  private static let levelMasks: [UInt8] = [0xf8, 0xde]

  private var chips = [PIC(), PIC()]
  private var output = false
  private lazy var blocks = (0..<2).map { ChipPorts(device: self, chip: $0) }
  private lazy var levelBlock = LevelPorts(device: self)

  /// Told when the output to the processor changes. Machine lock held.
  public var onOutput: (Bool) -> Void = { _ in }

  /// Makes the pair as it is after power-on.
  public init() { super.init(name: "pic") }

  public override func added(to machine: Machine) {
    for (block, port) in zip(blocks, Self.chipPorts) {
      machine.portSpace.map(block, at: port, byteCount: Self.portsPerChip)
    }
    machine.portSpace.map(levelBlock, at: Self.levelPort, byteCount: 2)
  }

  public override func shutdown() {
    for block in blocks { machine?.portSpace.unmap(block) }
    machine?.portSpace.unmap(levelBlock)
  }

  public override func reset() {
    chips = [PIC(), PIC()]
    update()
  }

  /// Sets the level of an input, 0 to 15; the cascade's is nobody's, and others do not exist.
  public func setInput(_ input: Int, asserted: Bool) {
    guard (0..<Self.inputCount).contains(input), input != Self.cascade else { return }
    chips[input / 8].setInput(input % 8, asserted: asserted)
    update()
  }

  /// Whether the processor is interrupted.
  public var isAsserted: Bool { output }

  /// The processor takes the interrupt and gets its vector; a spurious one where the reason is gone.
  public func acknowledge() -> UInt8 {
    defer { update() }
    let input = chips[0].acknowledge()
    if input != Self.cascade { return chips[0].vectorBase + UInt8(input) }
    return chips[1].vectorBase + UInt8(chips[1].acknowledge())
  }

  private func update() {
    // The second chip's output is the request itself: there is no edge to remember when its reason goes.
    chips[0].setRequest(Self.cascade, chips[1].pending != nil)
    let asserts = chips[0].pending != nil
    if asserts == output { return }
    output = asserts
    onOutput(asserts)
  }

  fileprivate func read(_ chip: Int, _ port: Int) -> UInt8 {
    defer { update() }
    return chips[chip].read(port)
  }

  fileprivate func write(_ chip: Int, _ port: Int, _ value: UInt8) {
    chips[chip].write(port, value)
    update()
  }

  fileprivate func levels(_ chip: Int) -> UInt8 { chips[chip].levelTriggered }

  fileprivate func setLevels(_ chip: Int, _ value: UInt8) {
    chips[chip].levelTriggered = value & Self.levelMasks[chip]
    update()
  }
}

/// The two ports of one chip.
private final class ChipPorts: RegisterBlock {
  // The device owns this block.
  private unowned let device: PICPair
  private let chip: Int
  init(device: PICPair, chip: Int) {
    self.device = device
    self.chip = chip
  }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    (0..<width).reduce(0) { $0 | UInt64(device.read(chip, Int(offset) + $1)) << UInt64(8 * $1) }
  }
  override func write(offset: UInt64, width: Int, value: UInt64) {
    for index in 0..<width {
      device.write(chip, Int(offset) + index, UInt8(truncatingIfNeeded: value >> UInt64(8 * index)))
    }
  }
}

/// ELCR1 and ELCR2.
private final class LevelPorts: RegisterBlock {
  // The device owns this block.
  private unowned let device: PICPair
  init(device: PICPair) { self.device = device }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    (0..<width).reduce(0) { $0 | UInt64(device.levels(Int(offset) + $1)) << UInt64(8 * $1) }
  }
  override func write(offset: UInt64, width: Int, value: UInt64) {
    for index in 0..<width {
      device.setLevels(Int(offset) + index, UInt8(truncatingIfNeeded: value >> UInt64(8 * index)))
    }
  }
}
