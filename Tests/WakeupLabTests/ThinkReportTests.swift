// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import WakeupLab

@Suite struct ThinkReportTests {
  private func failure(_ text: String) throws -> String {
    try #require(throws: WakeupError.self) { _ = try ThinkReport(parsing: text) }.description
  }

  @Test func theReportIsFoundAmongOtherLines() throws {
    let report = try ThinkReport(
      parsing: "SeaBIOS\r\n# think requests=1024 failures=2 ns=18446744073709551615\r\nend\n")
    #expect(report.requestCount == 1024 && report.failureCount == 2 && report.elapsedNs == .max)
  }

  @Test func numbersThatAreNotKnownArePassedOver() throws {
    let report = try ThinkReport(parsing: "# think ns=3 requests=1 waits=9 failures=0")
    #expect(report == (try ThinkReport(parsing: "# think requests=1 failures=0 ns=3")))
  }

  @Test(arguments: [
    "# think requests=1 failures=0", "# think requests=1 failures=0 ns=", "# think requests=1 failures=0 ns=-1",
    "# think requests=1 failures=0 ns=18446744073709551616", "# think requests=1 requests=2 failures=0 ns=1",
    "# think requests failures=0 ns=1", "# think ",
  ])
  func aReportThatCannotBeReadIsRefused(line: String) throws {
    #expect(try failure(line + "\n") == "the guest's report cannot be read: \(line)")
  }

  @Test func aGuestThatGaveUpIsQuoted() throws {
    #expect(try failure("Bail out! no clock\r\n") == "the guest gave up: no clock")
    #expect(try failure("# think requests=1 failures=0 ns=1\nBail out! x") == "the guest gave up: x")
  }

  @Test(arguments: ["", "\n\n", "ok 1 - something\n", "#think requests=1 failures=0 ns=1"])
  func aGuestWithoutAReportIsRefused(text: String) throws {
    #expect(try failure(text) == "the guest ended without a report")
  }
}
