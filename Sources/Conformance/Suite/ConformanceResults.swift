// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials

/// How results are printed.
public enum ResultFormat: String, CaseIterable, Sendable {
  /// For people: what is not as it should be, and a summary.
  case text
  /// The Test Anything Protocol, version 13.
  case tap
  /// JUnit's XML, as continuous integration services read it.
  case junit
  /// One JSON object.
  case json
}

/// What came of a run.
public struct ConformanceResults: Sendable {
  /// Whose machines were tested.
  public var kind: TargetKind
  /// The seed of the random numbers.
  public var seed: UInt64
  /// The cases in the order of the suites.
  public var cases: [CaseResult]

  /// How many cases passed; a difference that is known counts as passed, since it is what was expected.
  public var passedCount: Int { cases.count { $0.verdict.word == "passed" || $0.verdict.word == "difference" } }
  /// How many cases failed.
  public var failedCount: Int { cases.count { $0.verdict.isFailure } }
  /// How many cases were left out.
  public var skippedCount: Int { cases.count { $0.verdict.word == "skipped" } }
  /// How many differences are known and were seen.
  public var differenceCount: Int { cases.count { $0.verdict.word == "difference" } }
  /// Whether nothing failed.
  public var isGood: Bool { failedCount == 0 }

  /// The results in a format.
  /// - Parameters:
  ///   - format: which.
  ///   - version: the program's version, for JSON.
  public func text(_ format: ResultFormat, version: String) -> String {
    switch format {
    case .text: plainText
    case .tap: tap
    case .junit: junit
    case .json: json(version: version)
    }
  }

  // MARK: Text and TAP

  private var plainText: String {
    var lines: [String] = []
    for one in cases where one.verdict.word != "difference" {
      guard let detail = one.verdict.detail else { continue }
      lines.append("\(one.verdict.word.padded(to: 10)) \(one.testCase.id): \(one.testCase.title)")
      lines.append("           [\(one.testCase.section)] \(detail)")
    }
    lines += differenceTable
    lines.append(
      "\(cases.count) cases: \(passedCount) passed (\(differenceCount) of them by a known difference), "
        + "\(failedCount) failed, \(skippedCount) skipped; seed \(seed)")
    return lines.joined(separator: "\n") + "\n"
  }

  /// What differs as it is known to, with the reason; empty where nothing does.
  private var differenceTable: [String] {
    var rows: [(id: String, section: String, reason: String)] = []
    for one in cases {
      guard case .knownDifference(let reason, _) = one.verdict else { continue }
      rows.append((one.testCase.id, one.testCase.clauses, reason))
    }
    guard !rows.isEmpty else { return [] }
    let idWidth = rows.map(\.id.count).max() ?? 0
    let sectionWidth = rows.map(\.section.count).max() ?? 0
    let head = ["case".padded(to: idWidth), "held against".padded(to: sectionWidth), "what it does instead"]
    return [head.joined(separator: "  ")]
      + rows.map { "\($0.id.padded(to: idWidth))  \($0.section.padded(to: sectionWidth))  \($0.reason)" }
  }

  private var tap: String {
    var lines = ["TAP version 13", "1..\(cases.count)"]
    for (index, one) in cases.enumerated() {
      let title = "\(one.testCase.id): \(one.testCase.title) [\(one.testCase.section)]"
      let name = title.split(separator: "#", omittingEmptySubsequences: false).joined(separator: "\\#")
      let state = one.verdict.isFailure ? "not ok" : "ok"
      switch one.verdict {
      case .skipped(let reason): lines.append("ok \(index + 1) - \(name) # SKIP \(reason)")
      default: lines.append("\(state) \(index + 1) - \(name)")
      }
      if let detail = one.verdict.detail {
        lines += detail.split(separator: "\n").map { "# \($0)" }
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  // MARK: JUnit

  private var junit: String {
    let seconds = cases.reduce(0) { $0 + $1.seconds }
    var lines = [
      #"<?xml version="1.0" encoding="UTF-8"?>"#,
      #"<testsuite name="spindle conform" tests="\#(cases.count)" failures="\#(failedCount)" skipped="\#(skippedCount)" time="\#(seconds.milliseconds)">"#,
    ]
    for one in cases {
      let subject = one.testCase.id.split(separator: "/").first.map(String.init) ?? one.testCase.id
      let name = "\(one.testCase.id): \(one.testCase.title) [\(one.testCase.section)]".xmlEscaped
      let head = #"  <testcase classname="\#(subject)" name="\#(name)" time="\#(one.seconds.milliseconds)""#
      guard let detail = one.verdict.detail?.xmlEscaped else {
        lines.append(head + "/>")
        continue
      }
      switch one.verdict {
      case .skipped: lines.append(head + #"><skipped message="\#(detail)"/></testcase>"#)
      case .knownDifference: lines.append(head + "><system-out>\(detail)</system-out></testcase>")
      default: lines.append(head + #"><failure message="\#(detail)"/></testcase>"#)
      }
    }
    return (lines + ["</testsuite>"]).joined(separator: "\n") + "\n"
  }

  // MARK: JSON

  private struct Object: Encodable {
    struct Case: Encodable {
      var id: String
      var title: String
      var section: String
      var verdict: String
      var detail: String?
      var seconds: Double
    }

    let schema = 1
    let spindle: String
    let command = "conform"
    let results: [String] = []
    let target: String
    let seed: UInt64
    let passed: Int
    let failed: Int
    let skipped: Int
    let differences: Int
    let cases: [Case]
  }

  private func json(version: String) -> String {
    let object = Object(
      spindle: version, target: kind.rawValue, seed: seed, passed: passedCount, failed: failedCount,
      skipped: skippedCount, differences: differenceCount,
      cases: cases.map { one in
        Object.Case(
          id: one.testCase.id, title: one.testCase.title, section: one.testCase.section, verdict: one.verdict.word,
          detail: one.verdict.detail, seconds: one.seconds)
      })
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    // Strings and finite numbers always encode.
    guard let bytes = try? encoder.encode(object) else { preconditionFailure("results do not encode") }
    return String(decoding: bytes, as: UTF8.self) + "\n"
  }
}

extension Verdict {
  /// One word for it: passed, failed, skipped or difference.
  public var word: String {
    switch self {
    case .passed: "passed"
    case .failed, .missingDifference: "failed"
    case .skipped: "skipped"
    case .knownDifference: "difference"
    }
  }

  /// Whether the run is bad because of it.
  public var isFailure: Bool { word == "failed" }

  /// What there is to say about it; nil for a case that simply passed.
  public var detail: String? {
    switch self {
    case .passed: nil
    case .failed(let text): text
    case .skipped(let reason): reason
    case .knownDifference(let reason, let seen): "\(reason) (\(seen))"
    case .missingDifference(let reason): "expected a known difference, but the case passed: \(reason)"
    }
  }
}

extension Double {
  /// Seconds with three digits after the point.
  fileprivate var milliseconds: String {
    let thousandths = Int((self * 1000).rounded())
    let fraction = String(thousandths % 1000)
    return "\(thousandths / 1000).\(String(repeating: "0", count: 3 - fraction.count))\(fraction)"
  }
}

extension String {
  fileprivate func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }

  /// The text as it stands in an XML attribute; characters that XML does not have become "?".
  fileprivate var xmlEscaped: String {
    var escaped = ""
    for scalar in unicodeScalars {
      switch scalar {
      case "&": escaped += "&amp;"
      case "<": escaped += "&lt;"
      case ">": escaped += "&gt;"
      case "\"": escaped += "&quot;"
      case "\n", "\t": escaped += " "
      default: escaped.unicodeScalars.append(scalar.value < 32 ? "?" : scalar)
      }
    }
    return escaped
  }
}
