// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials

/// Lists of cases that are not run.
public enum CaseList {
  /// Two lines a case: its id and what it says; the kind of machine and the section.
  public static func text(of cases: [ConformanceCase]) -> String {
    cases.map { "\($0.id): \($0.title)\n    \($0.machine.rawValue) [\($0.section)]\n" }.joined()
      + "\(cases.count) cases\n"
  }

  private struct Object: Encodable {
    struct Case: Encodable {
      var id: String
      var title: String
      var section: String
      var machine: String
    }

    let schema = 1
    let spindle: String
    let command = "conform"
    let results: [String] = []
    let cases: [Case]
  }

  /// One JSON object.
  public static func json(of cases: [ConformanceCase], version: String) -> String {
    let object = Object(
      spindle: version,
      cases: cases.map {
        Object.Case(id: $0.id, title: $0.title, section: $0.section, machine: $0.machine.rawValue)
      })
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    // Strings always encode.
    guard let bytes = try? encoder.encode(object) else { preconditionFailure("a list does not encode") }
    return String(decoding: bytes, as: UTF8.self) + "\n"
  }
}
