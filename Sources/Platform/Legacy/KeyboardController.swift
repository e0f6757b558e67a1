// SPDX-License-Identifier: Apache-2.0
import Machine

/// The 8042 keyboard controller of a PC as far as guests ask for it without a keyboard: status, self test, configuration
/// and output port, and the reset by command 0xfe (Intel 8042 as on the IBM PC AT, Technical Reference, section 1).
///
/// No keyboard or mouse is connected, so nothing answers what is sent to them. Machine lock held for everything.
public final class KeyboardController: PortDevice {
  /// The data port.
  public static let standardPort: UInt16 = 0x60
  private static let commandPort: UInt64 = 0x64

  private enum Status {
    static let outputFull: UInt8 = 1 << 0
    static let selfTestPassed: UInt8 = 1 << 2
    static let wasCommand: UInt8 = 1 << 3
    static let notLocked: UInt8 = 1 << 4
  }

  private enum Command {
    static let readConfiguration: UInt8 = 0x20
    static let writeConfiguration: UInt8 = 0x60
    static let selfTest: UInt8 = 0xaa
    static let testKeyboard: UInt8 = 0xab
    static let disableKeyboard: UInt8 = 0xad
    static let enableKeyboard: UInt8 = 0xae
    static let readOutputPort: UInt8 = 0xd0
    static let writeOutputPort: UInt8 = 0xd1
    static let firstPulse: UInt8 = 0xf0
  }

  private enum Answer {
    static let selfTestPassed: UInt8 = 0x55
    static let keyboardLinePassed: UInt8 = 0x00
  }

  /// The output port's bit 0 resets the processor while it is low; bit 1 is A20.
  private static let notReset: UInt8 = 1 << 0
  private static let outputPortDefault: UInt8 = 0x03
  private static let keyboardDisabled: UInt8 = 1 << 4
  /// After power-on: keyboard and mouse are off.
  private static let configurationDefault: UInt8 = 0x30

  private var configuration = configurationDefault
  private var outputPort = outputPortDefault
  private var output: UInt8?
  private var flags = Status.notLocked
  /// A command that waits for its byte at the data port.
  private var waiting: UInt8?
  private lazy var commandRegisters = CommandRegisters(device: self)

  /// Makes the controller as it is after power-on.
  public init() { super.init(name: "keyboard-controller", firstPort: KeyboardController.standardPort, portCount: 1) }

  public override func added(to machine: Machine) {
    super.added(to: machine)
    machine.portSpace.map(commandRegisters, at: Self.commandPort, byteCount: 1)
  }

  public override func shutdown() {
    super.shutdown()
    machine?.portSpace.unmap(commandRegisters)
  }

  public override func reset() {
    configuration = Self.configurationDefault
    outputPort = Self.outputPortDefault
    output = nil
    flags = Status.notLocked
    waiting = nil
  }

  // MARK: Ports

  public override func portRead(offset: Int, width: Int) -> UInt32 {
    defer { output = nil }
    return UInt32(output ?? 0)
  }

  public override func portWrite(offset: Int, width: Int, value: UInt32) {
    flags &= ~Status.wasCommand
    let byte = UInt8(truncatingIfNeeded: value)
    switch waiting {
    case Command.writeConfiguration: configuration = byte
    case Command.writeOutputPort: setOutputPort(byte)
    default: break
    }
    waiting = nil
  }

  fileprivate var status: UInt8 { flags | (output == nil ? 0 : Status.outputFull) }

  fileprivate func command(_ byte: UInt8) {
    flags |= Status.wasCommand
    waiting = nil
    switch byte {
    case Command.readConfiguration: output = configuration
    case Command.writeConfiguration, Command.writeOutputPort: waiting = byte
    case Command.selfTest:
      flags |= Status.selfTestPassed
      output = Answer.selfTestPassed
    case Command.testKeyboard: output = Answer.keyboardLinePassed
    case Command.disableKeyboard: configuration |= Self.keyboardDisabled
    case Command.enableKeyboard: configuration &= ~Self.keyboardDisabled
    case Command.readOutputPort: output = outputPort
    // Pulses low those of the lower four lines whose bits are 0; line 0 is the reset.
    case Command.firstPulse...: if byte & Self.notReset == 0 { machine?.requestReset() }
    default: break
    }
  }

  private func setOutputPort(_ value: UInt8) {
    outputPort = value
    if value & Self.notReset == 0 { machine?.requestReset() }
  }

  private final class CommandRegisters: RegisterBlock {
    // The device owns this block.
    private unowned let device: KeyboardController
    init(device: KeyboardController) { self.device = device }
    override func read(offset: UInt64, width: Int) -> UInt64 { UInt64(device.status) }
    override func write(offset: UInt64, width: Int, value: UInt64) {
      device.command(UInt8(truncatingIfNeeded: value))
    }
  }
}
