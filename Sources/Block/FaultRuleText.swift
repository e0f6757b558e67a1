// SPDX-License-Identifier: Apache-2.0
import Glibc

/// What is wrong with the text of a fault rule, as one line.
public struct FaultRuleError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The line.
  public let description: String

  init(_ description: String) { self.description = description }
}

extension FaultRule {
  /// Reads rules as users write them (`fault=`):
  ///
  ///     rules     = rule *( ";" rule )
  ///     rule      = kinds *( ":" word )
  ///     kinds     = "any" / kind *( "+" kind )
  ///     kind      = "read" / "write" / "flush" / "discard" / "write-zeroes"
  ///     word      = action / condition
  ///     action    = "error=" NAME / "delay=" TIME / "short=" SIZE / "hang"
  ///     condition = "range=" SIZE "-" SIZE / "nth=" N / "from=" N
  ///
  /// A rule has exactly one action, and each condition at most once; NAME is an errno's name, TIME a number with `ns`,
  /// `us`, `ms` or `s`, SIZE a number of bytes, with K, M, G or T for powers of 1024. A range goes from its first byte
  /// to the one after its last. `nth` is the one request with the fault, counted from 1 among those that match; `from`
  /// is the first. For instance `write:error=ENOSPC:nth=3;read:range=1M-2M:delay=5ms`.
  /// - Throws: `FaultRuleError`, one line that says which word is wrong and what there is.
  public static func parse(_ text: String) throws(FaultRuleError) -> [FaultRule] {
    var rules: [FaultRule] = []
    for part in text.split(separator: ";", omittingEmptySubsequences: false) {
      rules.append(try parseRule(String(part)))
    }
    return rules
  }

  private static let kinds: [(name: String, kind: FaultOperations)] = [
    ("any", .any), ("read", .read), ("write", .write), ("flush", .flush), ("discard", .discard),
    ("write-zeroes", .writeZeroes),
  ]
  private static let errors: [(name: String, code: Int32)] = [
    ("EPERM", EPERM), ("EIO", EIO), ("ENXIO", ENXIO), ("EAGAIN", EAGAIN), ("ENOMEM", ENOMEM), ("EACCES", EACCES),
    ("EBUSY", EBUSY), ("ENODEV", ENODEV), ("EINVAL", EINVAL), ("EFBIG", EFBIG), ("ENOSPC", ENOSPC), ("EROFS", EROFS),
    ("ENOSYS", ENOSYS), ("ENODATA", ENODATA), ("EILSEQ", EILSEQ), ("EOPNOTSUPP", EOPNOTSUPP), ("ETIMEDOUT", ETIMEDOUT),
    ("EDQUOT", EDQUOT), ("ECANCELED", ECANCELED), ("EREMOTEIO", EREMOTEIO), ("ESTALE", ESTALE),
  ]
  private static let times: [(unit: String, ns: UInt64)] = [
    ("ns", 1), ("us", 1000), ("ms", 1_000_000), ("s", 1_000_000_000),
  ]
  private static let sizes: [(unit: String, bytes: UInt64)] = [
    ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40),
  ]

  private static func parseRule(_ text: String) throws(FaultRuleError) -> FaultRule {
    var words = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    let operations = try parseKinds(words.removeFirst())
    var action: Action?
    var range: Range<UInt64>?
    var occurrence: Occurrence?
    for word in words {
      let equals = word.firstIndex(of: "=")
      let key = equals.map { String(word[..<$0]) } ?? word
      let value = equals.map { String(word[word.index(after: $0)...]) }
      switch (key, value) {
      case ("range", let value?):
        guard range == nil else { throw FaultRuleError("fault '\(text)': more than one range") }
        range = try parseRange(value)
      case ("nth", let value?), ("from", let value?):
        guard occurrence == nil else { throw FaultRuleError("fault '\(text)': more than one of nth and from") }
        guard let number = UInt64(value), number > 0 else {
          throw FaultRuleError("fault '\(word)': not a number from 1")
        }
        occurrence = key == "nth" ? .only(number) : .from(number)
      default:
        guard action == nil else { throw FaultRuleError("fault '\(text)': more than one action") }
        action = try parseAction(key, value)
      }
    }
    guard let action else {
      throw FaultRuleError("fault '\(text)': no action; give one of error=, delay=, short=, hang")
    }
    return FaultRule(operations, action, range: range, occurrence: occurrence ?? .every)
  }

  private static func parseKinds(_ text: String) throws(FaultRuleError) -> FaultOperations {
    var operations: FaultOperations = []
    for name in text.split(separator: "+", omittingEmptySubsequences: false) {
      guard let kind = kinds.first(where: { $0.name == name }) else {
        let known = kinds.map(\.name).joined(separator: ", ")
        throw FaultRuleError("fault '\(name)': unknown kind of request; choose from \(known)")
      }
      operations.formUnion(kind.kind)
    }
    return operations
  }

  private static func parseAction(_ key: String, _ value: String?) throws(FaultRuleError) -> Action {
    switch (key, value) {
    case ("hang", nil): return .hang
    case ("error", let value?):
      guard let error = errors.first(where: { $0.name == value }) else {
        let known = errors.map(\.name).joined(separator: ", ")
        throw FaultRuleError("fault 'error=\(value)': unknown error; choose one of \(known)")
      }
      return .error(error.code)
    case ("delay", let value?):
      guard let ns = number(value, units: times.map { ($0.unit, $0.ns) }, needsUnit: true) else {
        throw FaultRuleError("fault 'delay=\(value)': not a time; write a whole number with ns, us, ms or s")
      }
      return .delay(ns: ns)
    case ("short", let value?): return .short(bytes: try parseSize(value))
    default:
      throw FaultRuleError(
        "fault '\(key)': unknown or without its value; there are error=, delay=, short=, hang, range=, nth=, from=")
    }
  }

  private static func parseRange(_ text: String) throws(FaultRuleError) -> Range<UInt64> {
    guard let dash = text.firstIndex(of: "-") else {
      throw FaultRuleError("fault 'range=\(text)': not of the form FIRST-END, such as 0-4096 or 1M-2M")
    }
    let start = try parseSize(String(text[..<dash]))
    let end = try parseSize(String(text[text.index(after: dash)...]))
    guard start < end else { throw FaultRuleError("fault 'range=\(text)': ends before it begins") }
    return start..<end
  }

  private static func parseSize(_ text: String) throws(FaultRuleError) -> UInt64 {
    guard let bytes = number(text, units: sizes.map { ($0.unit, $0.bytes) }, needsUnit: false) else {
      throw FaultRuleError("fault '\(text)': not a size; write a whole number of bytes, or one with K, M, G or T")
    }
    return bytes
  }

  private static func number(_ text: String, units: [(String, UInt64)], needsUnit: Bool) -> UInt64? {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let rest = String(text[digits.endIndex...])
    guard let number = UInt64(digits) else { return nil }
    if rest.isEmpty { return needsUnit ? nil : number }
    guard let unit = units.first(where: { $0.0 == rest }) else { return nil }
    let product = number.multipliedReportingOverflow(by: unit.1)
    return product.overflow ? nil : product.partialValue
  }
}
