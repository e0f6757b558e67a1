// SPDX-License-Identifier: Apache-2.0
import Bench
import FoundationEssentials

/// What every command prints with `--json`: one object on standard output.
struct JSONReport: Encodable {
  let schema = 1
  let spindle = Spindle.version
  let command: String
  let results: [BenchResult]
}

/// Prints the results of a measurement for programs.
func printJSON(command: String, results: [BenchResult]) throws {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  print(String(decoding: try encoder.encode(JSONReport(command: command, results: results)), as: UTF8.self))
}
