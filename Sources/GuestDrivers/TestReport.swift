// SPDX-License-Identifier: Apache-2.0

/// What the words of the command line ask of the test program.
public struct TestOptions: Equatable, Sendable {
  /// `irq=msix` or `irq=msi`, which mean the same, or `irq=poll`.
  public var waitMode: WaitMode = .interrupt
  /// `seed=N`: what the scratch pattern follows from.
  public var seed: UInt64 = 1
  /// `disk=gpt` or `disk=plain`: whether partitions are looked for.
  public var looksForPartitions = true
  /// `quiet`: no comment lines but the sums and serial numbers.
  public var isQuiet = false
  /// A word that the program does not know, or a value that it cannot read; the first byte of it, counted from 0.
  public var unknownWordAt: Int?

  /// What an empty command line means.
  public init() {}

  /// Reads a command line of words separated by spaces.
  public init(parsing line: [UInt8]) {
    var words = CommandLineWords(line)
    while let word = words.next() {
      if !take(word), unknownWordAt == nil {
        unknownWordAt = word.start
      }
    }
  }

  private mutating func take(_ word: CommandLineWord) -> Bool {
    if word.is("irq=msix") || word.is("irq=msi") {
      waitMode = .interrupt
    } else if word.is("irq=poll") {
      waitMode = .poll
    } else if word.is("disk=gpt") {
      looksForPartitions = true
    } else if word.is("disk=plain") {
      looksForPartitions = false
    } else if word.is("quiet") {
      isQuiet = true
    } else if let value = word.number(of: "seed=") {
      seed = value
    } else {
      return false
    }
    return true
  }
}

/// Counts the cases and prints them as TAP (Test Anything Protocol, version 13) on the serial port.
struct TestReport<B: Bus> {
  let console: SerialConsole<B>
  let isQuiet: Bool
  private(set) var caseCount: UInt64 = 0
  private(set) var failureCount: UInt64 = 0
  private(set) var skipCount: UInt64 = 0
  /// The disk that the cases are about; nil for those about the machine.
  var disk: UInt64?

  init(console: SerialConsole<B>, isQuiet: Bool) {
    self.console = console
    self.isQuiet = isQuiet
  }

  /// Reports a case.
  /// - Returns: whether it held.
  @discardableResult
  mutating func check(_ holds: Bool, _ name: StaticString) -> Bool {
    beginCase(holds, name)
    console.endLine()
    return holds
  }

  /// Reports a case that does not apply, and why.
  mutating func skip(_ name: StaticString, _ reason: StaticString) {
    beginCase(true, name)
    skipCount += 1
    console.text(" # SKIP ")
    console.text(reason)
    console.endLine()
  }

  /// Reports a case that could not be finished, and the error that ended it.
  mutating func fail(_ name: StaticString, _ error: DriverError) {
    beginCase(false, name)
    console.endLine()
    console.text("# ")
    console.text(TestReport.text(error))
    console.endLine()
  }

  private mutating func beginCase(_ holds: Bool, _ name: StaticString) {
    caseCount += 1
    if !holds {
      failureCount += 1
      console.text("not ")
    }
    console.text("ok ")
    console.decimal(caseCount)
    console.text(" - ")
    if let disk {
      console.text("disk ")
      console.decimal(disk)
      console.text(": ")
    }
    console.text(name)
  }

  /// Ends the report.
  func finish() {
    console.text("1..")
    console.decimal(caseCount)
    console.endLine()
    console.text("# passed ")
    console.decimal(caseCount - failureCount)
    console.text(" failed ")
    console.decimal(failureCount)
    console.endLine()
  }

  /// Begins a comment line that `quiet` leaves out; `body` writes the rest of it.
  func comment(_ body: (SerialConsole<B>) -> Void) {
    if !isQuiet {
      result(body)
    }
  }

  /// Writes a comment line that the host reads.
  func result(_ body: (SerialConsole<B>) -> Void) {
    console.text("# ")
    body(console)
    console.endLine()
  }

  static func text(_ error: DriverError) -> StaticString {
    switch error {
    case .machineStopped: "the machine is going away"
    case .timedOut: "the device did not answer in time"
    case .outOfResources: "no more memory or interrupts"
    case .missingCapability: "registers of the device are missing or lie outside the function's memory"
    case .notModern: "the device does not offer VERSION_1"
    case .featuresRefused: "the device refused the features"
    case .queueRefused: "the device refused the queue, or has no such queue"
    case .vectorRefused: "the device refused the MSI-X vector"
    case .deviceBroken: "the device needs a reset, or its used ring is impossible"
    case .noDevice: "the port has no device, or one that stays busy"
    case .stuck: "a reset does not end, or an engine does not start or stop"
    }
  }
}
