// SPDX-License-Identifier: Apache-2.0

/// Offsets of the 16550A's registers (National Semiconductor PC16550D data sheet, table II).
enum SerialRegister {
  /// Receiver buffer (read), transmitter holding (write); divisor latch, low, while DLAB is set.
  static let data = 0
  /// Interrupt enable; divisor latch, high, while DLAB is set.
  static let interruptEnable = 1
  /// Interrupt identification (read), FIFO control (write).
  static let interruptIdentification = 2
  static let lineControl = 3
  static let modemControl = 4
  static let lineStatus = 5
  static let modemStatus = 6
  static let scratch = 7
  static let count = 8
}

/// Interrupt enable register bits (section 8.6.5).
struct SerialInterruptEnable: OptionSet {
  var rawValue: UInt8
  static let received = SerialInterruptEnable(rawValue: 1 << 0)
  static let transmitterEmpty = SerialInterruptEnable(rawValue: 1 << 1)
  static let lineStatus = SerialInterruptEnable(rawValue: 1 << 2)
  static let modemStatus = SerialInterruptEnable(rawValue: 1 << 3)
  static let all: SerialInterruptEnable = [.received, .transmitterEmpty, .lineStatus, .modemStatus]
}

/// Values of the interrupt identification register's low four bits, highest priority first (section 8.6.4, table IV).
enum SerialInterrupt: UInt8 {
  case lineStatus = 0x6
  case received = 0x4
  case receiveTimeout = 0xc
  case transmitterEmpty = 0x2
  case modemStatus = 0x0
  case none = 0x1
}

/// FIFO control register bits (section 8.6.3).
struct SerialFIFOControl: OptionSet {
  var rawValue: UInt8
  static let enable = SerialFIFOControl(rawValue: 1 << 0)
  static let clearReceiver = SerialFIFOControl(rawValue: 1 << 1)
  static let clearTransmitter = SerialFIFOControl(rawValue: 1 << 2)

  /// How many bytes must be there for an interrupt.
  var triggerCount: Int { [1, 4, 8, 14][Int(rawValue >> 6)] }
}

/// Modem control register bits (section 8.6.6).
struct SerialModemControl: OptionSet {
  var rawValue: UInt8
  static let dataTerminalReady = SerialModemControl(rawValue: 1 << 0)
  static let requestToSend = SerialModemControl(rawValue: 1 << 1)
  static let out1 = SerialModemControl(rawValue: 1 << 2)
  static let out2 = SerialModemControl(rawValue: 1 << 3)
  static let loopback = SerialModemControl(rawValue: 1 << 4)
  static let all = SerialModemControl(rawValue: 0x1f)
}

/// Line status register bits (section 8.6.2).
struct SerialLineStatus: OptionSet {
  var rawValue: UInt8
  static let dataReady = SerialLineStatus(rawValue: 1 << 0)
  static let overrun = SerialLineStatus(rawValue: 1 << 1)
  static let transmitterHoldingEmpty = SerialLineStatus(rawValue: 1 << 5)
  static let transmitterEmpty = SerialLineStatus(rawValue: 1 << 6)
}

/// Modem status register bits (section 8.6.7): the low half says which inputs changed since the last read.
struct SerialModemStatus: OptionSet {
  var rawValue: UInt8
  static let ringTrailingEdge = SerialModemStatus(rawValue: 1 << 2)
  static let clearToSend = SerialModemStatus(rawValue: 1 << 4)
  static let dataSetReady = SerialModemStatus(rawValue: 1 << 5)
  static let ringIndicator = SerialModemStatus(rawValue: 1 << 6)
  static let carrierDetect = SerialModemStatus(rawValue: 1 << 7)
  static let deltas = SerialModemStatus(rawValue: 0x0f)
  /// What a terminal that is connected and ready shows.
  static let connected: SerialModemStatus = [.clearToSend, .dataSetReady, .carrierDetect]
}
