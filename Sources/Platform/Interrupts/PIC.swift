// SPDX-License-Identifier: Apache-2.0

/// One 8259A (Intel data sheet, 8086 mode): eight inputs in an order of priority. Machine lock held for everything.
///
/// An edge stays in the request register until it is acknowledged, also where the input has fallen meanwhile.
struct PIC {
  private static let inputCount = 8
  /// ICW1 and OCW2/OCW3 come through the even port.
  private enum Command {
    static let initialize: UInt8 = 1 << 4
    static let needsICW4: UInt8 = 1 << 0
    static let isSingle: UInt8 = 1 << 1
    static let levelTriggered: UInt8 = 1 << 3
    static let isOCW3: UInt8 = 1 << 3
    static let poll: UInt8 = 1 << 2
    static let setsReadRegister: UInt8 = 1 << 1
    static let readsService: UInt8 = 1 << 0
    static let setsSpecialMask: UInt8 = 1 << 6
    static let specialMask: UInt8 = 1 << 5
    static let rotate: UInt8 = 1 << 7
    static let specific: UInt8 = 1 << 6
    static let endOfInterrupt: UInt8 = 1 << 5
    static let automaticEnd: UInt8 = 1 << 1
  }

  /// Which initialisation word the odd port takes next.
  private enum Step { case ready, icw2, icw3, icw4 }

  private(set) var request: UInt8 = 0
  private(set) var service: UInt8 = 0
  private(set) var mask: UInt8 = 0
  private(set) var vectorBase: UInt8 = 0
  /// Inputs that follow a level (the ELCR).
  var levelTriggered: UInt8 = 0 { didSet { request |= levels & triggeredByLevel } }
  private var levels: UInt8 = 0
  private var allLevels = false
  private var step = Step.ready
  private var needsICW4 = false
  private var isSingle = false
  private var readsService = false
  private var specialMask = false
  private var automaticEnd = false
  private var rotatesAutomatically = false
  private var isPolled = false
  /// The input of the highest priority.
  private var first = 0

  private var triggeredByLevel: UInt8 { allLevels ? 0xff : levelTriggered }

  /// Sets an input's level.
  mutating func setInput(_ input: Int, asserted: Bool) {
    let bit = UInt8(1) << UInt8(input)
    if asserted {
      if levels & bit == 0 || triggeredByLevel & bit != 0 { request |= bit }
      levels |= bit
    } else {
      levels &= ~bit
      request &= ~(bit & triggeredByLevel)
    }
  }

  /// Requests an input, or takes the request back, without regard to edges.
  mutating func setRequest(_ input: Int, _ isRequested: Bool) {
    let bit = UInt8(1) << UInt8(input)
    request = isRequested ? request | bit : request & ~bit
  }

  /// The input that wants the processor now: requested, not masked, and above everything in service.
  var pending: Int? {
    for offset in 0..<Self.inputCount {
      let input = (first + offset) % Self.inputCount
      let bit = UInt8(1) << UInt8(input)
      if service & bit != 0 && !(specialMask && mask & bit != 0) { return nil }
      if request & bit != 0 && mask & bit == 0 { return input }
    }
    return nil
  }

  /// The processor takes the interrupt: input 7 without service where none is pending any more.
  mutating func acknowledge() -> Int {
    guard let input = pending else { return Self.inputCount - 1 }
    let bit = UInt8(1) << UInt8(input)
    if triggeredByLevel & bit == 0 { request &= ~bit }
    if automaticEnd {
      if rotatesAutomatically { first = (input + 1) % Self.inputCount }
    } else {
      service |= bit
    }
    return input
  }

  /// Reads the even port (0) or the odd one (1).
  mutating func read(_ port: Int) -> UInt8 {
    if isPolled {
      isPolled = false
      return pending == nil ? 0 : 0x80 | UInt8(acknowledge())
    }
    return port == 1 ? mask : readsService ? service : request
  }

  /// Writes the even port (0) or the odd one (1).
  mutating func write(_ port: Int, _ value: UInt8) {
    if port == 1 { return writeData(value) }
    if value & Command.initialize != 0 { return initialize(value) }
    if value & Command.isOCW3 != 0 { return writeOCW3(value) }
    writeOCW2(value)
  }

  private mutating func initialize(_ value: UInt8) {
    let (kept, level) = (levels, levelTriggered)
    self = PIC()
    levels = kept
    levelTriggered = level
    needsICW4 = value & Command.needsICW4 != 0
    isSingle = value & Command.isSingle != 0
    allLevels = value & Command.levelTriggered != 0
    request = levels & triggeredByLevel
    step = .icw2
  }

  private mutating func writeData(_ value: UInt8) {
    switch step {
    case .ready: mask = value
    case .icw2:
      vectorBase = value & 0xf8
      step = isSingle ? (needsICW4 ? .icw4 : .ready) : .icw3
    // The wiring of the pair is the board's, whatever the guest says of it.
    case .icw3: step = needsICW4 ? .icw4 : .ready
    case .icw4:
      automaticEnd = value & Command.automaticEnd != 0
      step = .ready
    }
  }

  private mutating func writeOCW3(_ value: UInt8) {
    if value & Command.poll != 0 { isPolled = true }
    if value & Command.setsReadRegister != 0 { readsService = value & Command.readsService != 0 }
    if value & Command.setsSpecialMask != 0 { specialMask = value & Command.specialMask != 0 }
  }

  private mutating func writeOCW2(_ value: UInt8) {
    let rotates = value & Command.rotate != 0
    let isSpecific = value & Command.specific != 0
    var input: Int? = Int(value & 7)
    guard value & Command.endOfInterrupt != 0 else {
      if isSpecific {
        if rotates { first = ((input ?? 0) + 1) % Self.inputCount }
      } else {
        rotatesAutomatically = rotates
      }
      return
    }
    if !isSpecific {
      input = (0..<Self.inputCount).map { (first + $0) % Self.inputCount }.first { service & 1 << UInt8($0) != 0 }
    }
    guard let input else { return }
    service &= ~(1 << UInt8(input))
    if rotates { first = (input + 1) % Self.inputCount }
  }
}
