// SPDX-License-Identifier: Apache-2.0
import HostSystem

/// One script on one machine. Belongs to one thread.
struct QTScriptExecution {
  /// A script sends no more requests than this: a repetition that was not meant ends in a message.
  static let requestsMax: UInt64 = 20_000_000
  /// Nor does it do more things that send nothing.
  private static let stepsMax: UInt64 = 100_000_000
  /// How much of a reply a message shows.
  private static let shownCharactersMax = 120

  private let client: QTestClient
  private var variables: [String: UInt64] = [:]
  private var stepCount: UInt64 = 0
  /// False once the machine has said that its clock moves by itself.
  private var canStepClock = true

  init(_ client: QTestClient) { self.client = client }

  /// Does everything, and asks at the end whether the machine lives.
  /// - Throws: `ConformanceFailure` with the line's place where something is not as expected, or where the machine is
  ///   gone; it says in either case what was seen.
  mutating func run(_ script: QTScript) throws(ConformanceFailure) {
    try run(script.steps)
    let last = script.steps.last?.place
    let end = QTScript.Place(file: last?.file ?? script.name, line: last?.line ?? 0, text: "after the last line")
    try expectAlive(end)
  }

  private mutating func run(_ steps: [QTScript.Step]) throws(ConformanceFailure) {
    for step in steps {
      stepCount += 1
      guard stepCount <= Self.stepsMax, client.requestCount <= Self.requestsMax else {
        throw failure(step.place, "the script has done more than it may: repeat fewer times")
      }
      try run(step)
    }
  }

  private mutating func run(_ step: QTScript.Step) throws(ConformanceFailure) {
    let place = step.place
    switch step.action {
    case .request(let request, let expectation):
      try check(try send(try line(request, place), place), expectation, place)
    case .set(let name, let expression): variables[name] = try value(expression, place)
    case .get(let name, let request): variables[name] = try number(try send(try line(request, place), place), place)
    case .wait(let condition, let nanoseconds): try wait(condition, nanoseconds, place)
    case .waitForInterrupt(let line, let nanoseconds):
      try waitForInterrupt(UInt32(truncatingIfNeeded: try value(line, place)), nanoseconds, place)
    case .pause(let nanoseconds): try pause(nanoseconds, place)
    case .repetition(let count, let counter, let steps):
      let count = try value(count, place)
      var index: UInt64 = 0
      while index < count {
        if let counter { variables[counter] = index }
        try run(steps)
        index += 1
        // A repetition of nothing counts too, or it could take for ever.
        stepCount += 1
        guard stepCount <= Self.stepsMax else {
          throw failure(place, "the script has done more than it may: repeat fewer times")
        }
      }
    case .expectAlive: try expectAlive(place)
    }
  }

  // MARK: Requests

  private func value(_ expression: Expression, _ place: QTScript.Place) throws(ConformanceFailure) -> UInt64 {
    do throws(Expression.Failure) { return try expression.value(variables) } catch {
      throw failure(place, error.reason)
    }
  }

  private func line(_ request: QTScript.Request, _ place: QTScript.Place) throws(ConformanceFailure) -> String {
    var line = ""
    for piece in request.pieces {
      switch piece {
      case .text(let text): line += text
      case .number(let expression): line += CaseContext.hexadecimal(try value(expression, place))
      }
    }
    return line
  }

  private func send(_ line: String, _ place: QTScript.Place) throws(ConformanceFailure) -> String {
    do throws(TransportError) { return try client.send(line: line) } catch {
      throw failure(place, error.description)
    }
  }

  private func expectAlive(_ place: QTScript.Place) throws(ConformanceFailure) {
    let reply = try send("endianness", place)
    guard reply == "OK little" else {
      throw failure(place, "expected the living machine's reply \"OK little\", saw \(Self.shown(reply))")
    }
  }

  // MARK: Replies

  private func check(
    _ reply: String, _ expectation: QTScript.Expectation, _ place: QTScript.Place
  ) throws(ConformanceFailure) {
    let expected: String
    switch expectation {
    case .any: return
    case .good:
      if reply.hasPrefix("OK") { return }
      expected = "OK"
    case .refused:
      if reply.hasPrefix("FAIL") { return }
      expected = "FAIL"
    case .text(let text):
      if reply == text { return }
      expected = "the reply \"\(text)\""
    case .number(let expression, let maskExpression):
      let wanted = try value(expression, place)
      var mask = UInt64.max
      if let maskExpression { mask = try value(maskExpression, place) }
      if try number(reply, place) & mask == wanted { return }
      let bits = mask == .max ? "" : " in the bits \(CaseContext.hexadecimal(mask))"
      expected = CaseContext.hexadecimal(wanted) + bits
    case .bytes(let wanted, let mask):
      try check(try bytes(reply, place), wanted, mask, place)
      return
    }
    throw failure(place, "expected \(expected), saw \(Self.shown(reply))")
  }

  private func check(
    _ seen: [UInt8], _ wanted: [UInt8], _ mask: [UInt8]?, _ place: QTScript.Place
  ) throws(ConformanceFailure) {
    guard seen.count == wanted.count else {
      throw failure(place, "expected \(wanted.count) bytes, saw \(seen.count)")
    }
    for index in seen.indices where seen[index] & (mask?[index] ?? 0xFF) != wanted[index] {
      let bits = mask.map { " in the bits \(CaseContext.hexadecimal($0[index]))" } ?? ""
      throw failure(
        place,
        "byte \(index) of \(wanted.count): expected \(CaseContext.hexadecimal(wanted[index]))\(bits), "
          + "saw \(CaseContext.hexadecimal(seen[index]))")
    }
  }

  /// The number of a reply such as `OK 0x0012` or, of clock requests, `OK 100`.
  private func number(_ reply: String, _ place: QTScript.Place) throws(ConformanceFailure) -> UInt64 {
    guard reply.hasPrefix("OK "), let number = Expression.number(reply.dropFirst(3)) else {
      throw failure(place, "expected a reply with a number, saw \(Self.shown(reply))")
    }
    return number
  }

  private func bytes(_ reply: String, _ place: QTScript.Place) throws(ConformanceFailure) -> [UInt8] {
    guard reply.hasPrefix("OK 0x"), let bytes = QTScript.hexadecimalBytes(Array(reply.utf8.dropFirst(5))) else {
      throw failure(place, "expected a reply with bytes, saw \(Self.shown(reply))")
    }
    return bytes
  }

  private static func shown(_ reply: String) -> String {
    reply.count > shownCharactersMax ? "\"\(reply.prefix(shownCharactersMax))…\"" : "\"\(reply)\""
  }

  private func failure(_ place: QTScript.Place, _ reason: String) -> ConformanceFailure {
    ConformanceFailure("\(place.file):\(place.line): \(place.shown): \(reason)")
  }

  // MARK: Time

  /// Steps a clock that only moves when told; one that moves by itself refuses, and is asked no more. Either way a
  /// request goes out, which brings back what the machine has to say of interrupts.
  private mutating func stepClock(_ nanoseconds: UInt64, _ place: QTScript.Place) throws(ConformanceFailure) {
    let request = canStepClock ? "clock_step \(nanoseconds)" : "endianness"
    if try send(request, place).hasPrefix("FAIL") { canStepClock = false }
  }

  /// Calls `isDone` until it says yes, the clock stepped by the host's time in between.
  private mutating func poll(
    _ nanoseconds: UInt64, _ place: QTScript.Place,
    _ isDone: (inout Self) throws(ConformanceFailure) -> Bool
  ) throws(ConformanceFailure) -> Bool {
    let start = HostClock.nanoseconds
    var previous = start
    while true {
      if try isDone(&self) { return true }
      let now = HostClock.nanoseconds
      if now - start >= nanoseconds { return false }
      try stepClock(max(1, now - previous), place)
      previous = now
    }
  }

  private mutating func wait(
    _ condition: QTScript.Condition, _ nanoseconds: UInt64, _ place: QTScript.Place
  ) throws(ConformanceFailure) {
    let line = try line(condition.request, place)
    let wanted = try value(condition.value, place)
    var mask = UInt64.max
    if let expression = condition.mask { mask = try value(expression, place) }
    var seen: UInt64 = 0
    let isSo = try poll(nanoseconds, place) { execution throws(ConformanceFailure) in
      seen = try execution.number(try execution.send(line, place), place)
      return (seen & mask == wanted) == condition.isEquality
    }
    guard isSo else {
      throw failure(
        place, "did not come to be so in \(nanoseconds / 1_000_000) ms; last seen \(CaseContext.hexadecimal(seen))")
    }
  }

  private mutating func waitForInterrupt(
    _ line: UInt32, _ nanoseconds: UInt64, _ place: QTScript.Place
  ) throws(ConformanceFailure) {
    let client = client
    let came = try poll(nanoseconds, place) { _ throws(ConformanceFailure) in
      let raised = QTestClient.InterruptChange(line: line, isRaised: true)
      guard client.interruptChanges.contains(raised) else { return false }
      client.interruptChanges.removeAll { $0.line == line }
      return true
    }
    guard came else {
      throw failure(
        place,
        "line \(line) was not raised in \(nanoseconds / 1_000_000) ms; is it intercepted (irq_intercept_in ioapic)?")
    }
  }

  private mutating func pause(_ nanoseconds: UInt64, _ place: QTScript.Place) throws(ConformanceFailure) {
    let start = HostClock.nanoseconds
    while case let passed = HostClock.nanoseconds - start, passed < nanoseconds {
      hostSleep(microseconds: UInt32(min(100_000, (nanoseconds - passed) / 1000 + 1)))
    }
    try stepClock(max(1, nanoseconds), place)
  }
}
