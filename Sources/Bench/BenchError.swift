// SPDX-License-Identifier: Apache-2.0

/// A measurement that could not be made, as one line.
public struct BenchError: Error, CustomStringConvertible, Sendable {
  /// The line.
  public let description: String

  init(_ description: String) { self.description = description }
}
