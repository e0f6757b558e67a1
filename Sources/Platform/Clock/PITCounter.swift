// SPDX-License-Identifier: Apache-2.0

/// One counter of an 8254 (Intel data sheet), as a function of time in ticks of its clock: nothing is counted, the counter
/// is worked out when it is read. Machine lock held for everything.
struct PITCounter {
  /// How the counter is read and written.
  private enum Access { case low, high, both }
  /// The largest count, which 0 stands for.
  private static let countMax: UInt64 = 0x1_0000

  private var mode: UInt8 = 3
  private var access = Access.both
  private var count = countMax
  private var start: UInt64 = 0
  /// The lower byte of a count whose upper one is still to come.
  private var written: UInt8?
  private var readsHigh = false
  private var latched: UInt16?
  private var latchedStatus: UInt8?
  private var hasCount = false
  private var control: UInt8 = 0x36
  /// The input that lets it count; a rising edge starts some modes.
  private var gate = true
  /// When the gate went down, in modes that stand still then.
  private var pausedAt: UInt64?
  /// Modes 1 and 5 wait for a rising edge of the gate.
  private var isTriggered = false

  /// Whether the mode repeats by itself: rate generator and square wave.
  private var isPeriodic: Bool { mode == 2 || mode == 3 }
  /// Whether the mode begins at a rising edge of the gate, and does not look at it otherwise.
  private var isOneShot: Bool { mode == 1 || mode == 5 }
  /// Whether something is counted.
  private var isRunning: Bool { hasCount && (isTriggered || !isOneShot) }

  // MARK: Control

  /// Takes a control word: access, mode, and the format, of which BCD is not offered.
  mutating func setControl(_ word: UInt8) {
    let format = word >> 4 & 3
    access = format == 1 ? .low : format == 2 ? .high : .both
    let wanted = word >> 1 & 7
    // Modes 6 and 7 are 2 and 3.
    mode = wanted > 5 ? wanted - 4 : wanted
    control = word & 0x3f
    hasCount = false
    isTriggered = false
    pausedAt = nil
    written = nil
    readsHigh = false
    latched = nil
    latchedStatus = nil
  }

  /// Keeps the counter as it is now for the next read.
  mutating func latch(at now: UInt64) { if latched == nil { latched = current(at: now) } }

  /// Keeps the status for the next read.
  mutating func latchStatus(at now: UInt64) {
    if latchedStatus == nil { latchedStatus = control | (output(at: now) ? 0x80 : 0) | (hasCount ? 0 : 0x40) }
  }

  /// Changes the gate.
  mutating func setGate(_ value: Bool, at now: UInt64) {
    if value == gate { return }
    gate = value
    if isOneShot {
      guard value else { return }
      start = now
      isTriggered = true
    } else if !value {
      pausedAt = now
    } else if let paused = pausedAt {
      // The periodic modes begin again, the others go on.
      start = isPeriodic ? now : start + (now - paused)
      pausedAt = nil
    }
  }

  // MARK: Data

  /// - Returns: whether the counter was loaded.
  mutating func write(_ value: UInt8, at now: UInt64) -> Bool {
    switch access {
    case .low: load(UInt64(value), at: now)
    case .high: load(UInt64(value) << 8, at: now)
    case .both:
      guard let low = written else {
        written = value
        return false
      }
      written = nil
      load(UInt64(value) << 8 | UInt64(low), at: now)
    }
    return true
  }

  private mutating func load(_ value: UInt64, at now: UInt64) {
    count = value == 0 ? Self.countMax : value
    hasCount = true
    if isOneShot { return }
    start = now
    pausedAt = gate ? nil : now
  }

  mutating func read(at now: UInt64) -> UInt8 {
    if let status = latchedStatus {
      latchedStatus = nil
      return status
    }
    let value = latched ?? current(at: now)
    switch access {
    case .low:
      latched = nil
      return UInt8(truncatingIfNeeded: value)
    case .high:
      latched = nil
      return UInt8(value >> 8)
    case .both:
      defer { readsHigh.toggle() }
      if !readsHigh { return UInt8(truncatingIfNeeded: value) }
      latched = nil
      return UInt8(value >> 8)
    }
  }

  // MARK: Time

  private func elapsed(at now: UInt64) -> UInt64 { isRunning ? (pausedAt ?? now) - start : 0 }

  private func current(at now: UInt64) -> UInt16 {
    let elapsed = elapsed(at: now)
    if mode == 3 {
      // The square wave counts by two.
      let even = max(2, count & ~1)
      return UInt16(truncatingIfNeeded: even - elapsed * 2 % even)
    }
    if mode == 2 { return UInt16(truncatingIfNeeded: count - elapsed % count) }
    return UInt16(truncatingIfNeeded: count &- elapsed)
  }

  /// The level of the output.
  func output(at now: UInt64) -> Bool {
    guard isRunning else { return mode != 0 }
    // A periodic mode that stands still has its output up.
    if isPeriodic && pausedAt != nil { return true }
    let elapsed = elapsed(at: now)
    switch mode {
    case 0, 1: return elapsed >= count
    case 2: return elapsed % count != count - 1
    case 3: return elapsed % count < (count + 1) / 2
    default: return elapsed != count
    }
  }

  /// When the output rises next after `now`; nil where it never does.
  func nextRise(after now: UInt64) -> UInt64? {
    guard isRunning, pausedAt == nil else { return nil }
    if isPeriodic { return start + ((now - start) / count + 1) * count }
    return now < start + count ? start + count : nil
  }
}
