// SPDX-License-Identifier: Apache-2.0

/// What a booted guest says of its thinking load on the serial port (`ThinkProgram`).
struct ThinkReport: Equatable {
  /// Requests that were made.
  var requestCount: UInt64
  /// Requests that failed.
  var failureCount: UInt64
  /// From the first thought to the end of the last one, nanoseconds by the guest's own clock.
  var elapsedNs: UInt64

  private static let prefix = "# think "
  private static let refusal = "Bail out! "

  /// Reads the report, which is one line of what came through the serial port; the rest of it is passed over.
  /// - Throws: what the guest said instead, or what is wrong with its report, as a part of a line.
  init(parsing text: String) throws(WakeupError) {
    // A line may end in a carriage return as well, and Swift takes both for one character.
    let lines = text.split(whereSeparator: \.isNewline)
    if let line = lines.first(where: { $0.hasPrefix(Self.refusal) }) {
      throw WakeupError("the guest gave up: \(line.dropFirst(Self.refusal.count))")
    }
    guard let line = lines.last(where: { $0.hasPrefix(Self.prefix) }) else {
      throw WakeupError("the guest ended without a report")
    }
    var values: [Substring: UInt64] = [:]
    for word in line.dropFirst(Self.prefix.count).split(separator: " ") {
      let parts = word.split(separator: "=", maxSplits: 1)
      guard parts.count == 2, let value = UInt64(parts[1]), values.updateValue(value, forKey: parts[0]) == nil else {
        throw WakeupError("the guest's report cannot be read: \(line)")
      }
    }
    guard let requestCount = values["requests"], let failureCount = values["failures"], let elapsedNs = values["ns"]
    else { throw WakeupError("the guest's report cannot be read: \(line)") }
    self.requestCount = requestCount
    self.failureCount = failureCount
    self.elapsedNs = elapsedNs
  }
}
