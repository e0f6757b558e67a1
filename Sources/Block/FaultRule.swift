// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Kinds of requests that a fault rule is about.
public struct FaultOperations: OptionSet, Sendable {
  /// One bit for each kind.
  public let rawValue: UInt8
  /// Makes a set of its bits.
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// The kind of one operation.
  public init(_ operation: BlockOperation) { rawValue = 1 << operation.rawValue }

  /// Reads.
  public static let read = FaultOperations(.read)
  /// Writes.
  public static let write = FaultOperations(.write)
  /// Flushes.
  public static let flush = FaultOperations(.flush)
  /// Discards.
  public static let discard = FaultOperations(.discard)
  /// Write-zeroes requests.
  public static let writeZeroes = FaultOperations(.writeZeroes)
  /// All kinds.
  public static let any: FaultOperations = [.read, .write, .flush, .discard, .writeZeroes]
}

/// One fault of a `FaultDriver`: which requests, and what becomes of them.
public struct FaultRule: Equatable, Sendable {
  /// What becomes of a request.
  public enum Action: Equatable, Sendable {
    /// It fails with this errno value (positive) and nothing is done.
    case error(Int32)
    /// It goes to the disk this many nanoseconds later.
    case delay(ns: UInt64)
    /// The disk serves its first bytes, this many rounded down to whole sectors; then it fails with EIO, or with the
    /// disk's own error. So does a disk that is gone in the middle of a transfer: the kernel reports what was moved,
    /// and the next call, for the rest, fails. A request that is no longer than that is served whole.
    case short(bytes: UInt64)
    /// It does not complete until `FaultDriver.release`, or until someone waits for the disk to be idle; then it is
    /// served.
    case hang
  }

  /// Which of the requests that match have the fault.
  public enum Occurrence: Equatable, Sendable {
    /// All.
    case every
    /// One, counted from 1.
    case only(UInt64)
    /// All from this one on, counted from 1.
    case from(UInt64)

    func includes(_ number: UInt64) -> Bool {
      switch self {
      case .every: true
      case .only(let one): number == one
      case .from(let first): number >= first
      }
    }
  }

  /// Kinds of requests.
  public var operations: FaultOperations
  /// Bytes on the disk that a request must touch; nil for any. With a range, flushes do not match.
  public var range: Range<UInt64>?
  /// Which of those that match.
  public var occurrence: Occurrence
  /// What becomes of them.
  public var action: Action

  /// Makes a rule.
  public init(
    _ operations: FaultOperations, _ action: Action, range: Range<UInt64>? = nil, occurrence: Occurrence = .every
  ) {
    self.operations = operations
    self.range = range
    self.occurrence = occurrence
    self.action = action
  }

  func matches(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    guard operations.contains(FaultOperations(request.pointee.operation)) else { return false }
    guard let range else { return true }
    guard request.pointee.operation != .flush, request.pointee.byteCount > 0 else { return false }
    let end = request.pointee.offset + request.pointee.byteCount
    return request.pointee.offset < range.upperBound && range.lowerBound < end
  }
}
