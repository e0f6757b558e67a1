// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Addresses in the clock's memory (MC146818A data sheet, figure 12; above 0x0e as PC firmware uses them).
enum ClockRegister {
  static let seconds = 0x00
  static let secondsAlarm = 0x01
  static let minutes = 0x02
  static let minutesAlarm = 0x03
  static let hours = 0x04
  static let hoursAlarm = 0x05
  static let weekday = 0x06
  static let day = 0x07
  static let month = 0x08
  static let year = 0x09
  static let a = 0x0a
  static let b = 0x0b
  static let c = 0x0c
  static let d = 0x0d
  static let century = 0x32
}

/// Bits of register B (MC146818A data sheet, "Register B"); the three enables have the places of their flags in C.
enum ClockControl {
  static let set: UInt8 = 1 << 7
  static let periodic: UInt8 = 1 << 6
  static let alarm: UInt8 = 1 << 5
  static let update: UInt8 = 1 << 4
  static let squareWave: UInt8 = 1 << 3
  static let binary: UInt8 = 1 << 2
  static let hours24: UInt8 = 1 << 1
  static let flags = periodic | alarm | update
  /// Of register A: both bits hold the divider (MC146818A data sheet, table 4).
  static let dividerHeld: UInt8 = 0x60
}

/// How numbers stand in the clock's registers, by bits of register B.
struct ClockFormat {
  var isBinary: Bool
  var is24Hours: Bool
  private static let afternoon: UInt8 = 0x80

  init(registerB: UInt8) {
    isBinary = registerB & ClockControl.binary != 0
    is24Hours = registerB & ClockControl.hours24 != 0
  }

  func encode(_ value: Int) -> UInt8 { isBinary ? UInt8(value & 0xff) : UInt8((value / 10 % 10) << 4 | (value % 10)) }
  func decode(_ value: UInt8) -> Int { isBinary ? Int(value) : Int(value >> 4) * 10 + Int(value & 0x0f) }

  func encodeHour(_ hour: Int) -> UInt8 {
    if is24Hours { return encode(hour) }
    return encode(hour % 12 == 0 ? 12 : hour % 12) | (hour >= 12 ? Self.afternoon : 0)
  }

  func decodeHour(_ value: UInt8) -> Int {
    if is24Hours { return decode(value) }
    return decode(value & ~Self.afternoon) % 12 + (value & Self.afternoon != 0 ? 12 : 0)
  }
}

/// A date and time in fields, which a guest may set to anything one by one.
struct CalendarTime: Equatable {
  var second = 0
  var minute = 0
  var hour = 0
  /// 1 to 31, and 1 to 12.
  var day = 1
  var month = 1
  var year = 1970

  /// The fields of a time in seconds since 1970.
  init(secondsSinceEpoch: Int64) {
    var seconds = time_t(secondsSinceEpoch)
    var fields = tm()
    gmtime_r(&seconds, &fields)
    (second, minute, hour) = (Int(fields.tm_sec), Int(fields.tm_min), Int(fields.tm_hour))
    (day, month, year) = (Int(fields.tm_mday), Int(fields.tm_mon) + 1, Int(fields.tm_year) + 1900)
  }

  /// Seconds since 1970; fields out of range carry into the others.
  var secondsSinceEpoch: Int64 {
    var fields = tm()
    (fields.tm_sec, fields.tm_min, fields.tm_hour) = (Int32(second), Int32(minute), Int32(hour))
    (fields.tm_mday, fields.tm_mon, fields.tm_year) = (Int32(day), Int32(month - 1), Int32(year - 1900))
    return Int64(timegm(&fields))
  }

  /// 1 for Sunday to 7 for Saturday.
  var weekday: Int {
    let days = Int(secondsSinceEpoch >= 0 ? secondsSinceEpoch / 86400 : (secondsSinceEpoch - 86399) / 86400)
    // The first of January 1970 was a Thursday.
    return ((days + 4) % 7 + 7) % 7 + 1
  }
}

/// The alarm's three registers: a time of day, in which each part may be any.
struct ClockAlarm {
  /// nil for any.
  var second: Int?
  var minute: Int?
  var hour: Int?
  private static let any: UInt8 = 0xc0
  private static let secondsPerDay: Int64 = 86400

  init(memory: [UInt8], format: ClockFormat) {
    func part(_ register: Int, _ decode: (UInt8) -> Int) -> Int? {
      memory[register] & Self.any == Self.any ? nil : decode(memory[register])
    }
    second = part(ClockRegister.secondsAlarm, format.decode)
    minute = part(ClockRegister.minutesAlarm, format.decode)
    hour = part(ClockRegister.hoursAlarm, format.decodeHour)
  }

  /// The first time after `time` (both in seconds since 1970) that matches; nil where none does.
  func next(after time: Int64) -> Int64? {
    let ofDay = ((time % Self.secondsPerDay) + Self.secondsPerDay) % Self.secondsPerDay
    let midnight = time - ofDay
    if let today = first(from: Int(ofDay) + 1) { return midnight + Int64(today) }
    return first(from: 0).map { midnight + Self.secondsPerDay + Int64($0) }
  }

  /// The first second of the day from `start` on that matches.
  private func first(from start: Int) -> Int? {
    for candidateHour in start / 3600..<max(24, start / 3600) where hour.map({ $0 == candidateHour }) ?? true {
      let hourStart = max(start, candidateHour * 3600)
      for candidateMinute in hourStart % 3600 / 60..<60 where minute.map({ $0 == candidateMinute }) ?? true {
        let minuteStart = max(hourStart, candidateHour * 3600 + candidateMinute * 60)
        let from = minuteStart % 60
        guard let second else { return candidateHour * 3600 + candidateMinute * 60 + from }
        if (from..<60).contains(second) { return candidateHour * 3600 + candidateMinute * 60 + second }
      }
    }
    return nil
  }
}
