// SPDX-License-Identifier: Apache-2.0
import Conformance
import Glibc
import Testing

/// The suites against QEMU, where it is installed: a case that QEMU fails is wrong until the specification says otherwise.
@Suite struct RefereeTests {
  static let program = "qemu-system-x86_64"

  static let isInstalled: Bool = {
    guard let path = getenv("PATH") else { return false }
    return String(cString: path).split(separator: ":").contains { access("\($0)/\(program)", X_OK) == 0 }
  }()

  static func failures(_ filters: [String]) throws -> [String] {
    var options = ConformanceRun.Options(target: .command([program]))
    options.filters = filters
    options.jobs = 2
    let results = try ConformanceRun(options).run()
    print(results.text(.text, version: "test"))
    return results.cases.filter { $0.verdict.isFailure }.map { "\($0.testCase.id): \($0.verdict.detail ?? "")" }
  }

  @Test(.enabled(if: isInstalled)) func allCasesHoldOnQEMUButForTheKnownDifferences() throws {
    let filter = getenv("SPINDLE_CONFORM_FILTER").map { [String(cString: $0)] } ?? []
    #expect(try Self.failures(filter) == [])
  }
}
