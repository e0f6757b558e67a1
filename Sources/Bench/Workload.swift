// SPDX-License-Identifier: Apache-2.0

/// What requests a measurement makes.
struct Workload: Sendable {
  /// What is asked of the disk, and in which order; the raw value is the part of a result's name.
  enum Operation: String, Sendable {
    case randomRead = "randread"
    case randomWrite = "randwrite"
    case sequentialRead = "seqread"
    case sequentialWrite = "seqwrite"
    /// Random writes, each followed by a flush of its own. The pair counts as one request.
    case flushedWrite = "flush-write"
    /// Random writes that are durable when they complete.
    case fuaWrite = "fua-write"
  }

  /// What is asked.
  var operation: Operation
  /// Bytes of each request.
  var blockBytes: Int
  /// Bytes of the file that offsets are drawn from.
  var spanBytes: UInt64

  /// Whether the file's content is lost.
  var isWrite: Bool { operation != .randomRead && operation != .sequentialRead }
  /// Whether requests go through the file in order.
  var isSequential: Bool { operation == .sequentialRead || operation == .sequentialWrite }

  /// Operation / block size / depth.
  func name(depth: Int) -> String {
    "\(operation.rawValue)/\(blockBytes % 1024 == 0 ? "\(blockBytes >> 10)k" : "\(blockBytes)")/qd\(depth)"
  }
}
