// SPDX-License-Identifier: Apache-2.0
import Glibc

/// How host caches are used for a disk, with QEMU's names and meanings.
public enum CacheMode: String, CaseIterable, Sendable {
  /// O_DIRECT, and the guest sees a disk with a volatile write cache.
  case none
  /// The host's page cache, and a disk with a volatile write cache. The default.
  case writeback
  /// The host's page cache; every write is durable when it completes.
  case writethrough
  /// O_DIRECT; every write is durable when it completes.
  case directsync
  /// The host's page cache; flushes do nothing. Data is lost when the host fails.
  case unsafe

  /// Whether the host's page cache is bypassed.
  public var isDirect: Bool { self == .none || self == .directsync }
  /// Whether writes may be volatile until a flush.
  public var hasWriteCache: Bool { self != .writethrough && self != .directsync }
}

/// What becomes of a request that the host failed, with QEMU's names and meanings (`rerror=`, `werror=`).
public enum ErrorPolicy: String, CaseIterable, Sendable {
  /// The guest gets the error.
  case report
  /// The machine stops, and the request is tried again when it goes on.
  case stop
  /// The guest is told that all went well.
  case ignore
  /// `stop` where the host has no space left (ENOSPC), else `report`.
  case enospc

  /// Whether a request that failed with an errno value (positive) stops the machine.
  func stops(on code: Int32) -> Bool { self == .stop || (self == .enospc && code == ENOSPC) }
}

/// What a user says of a disk, beside where its bytes are.
public struct BlockConfiguration: Sendable {
  /// How host caches are used.
  public var cache = CacheMode.writeback
  /// The guest may only read.
  public var isReadOnly = false
  /// What the guest reads as serial number.
  public var serial = ""
  /// Requests of a batch that continue each other go to the host as one.
  public var merge = true
  /// Discards are answered without the disk, and zeroes are never unmapped.
  public var ignoresDiscard = false
  /// Most that the disk does in a second; see `BlockBackend.setLimits`.
  public var limits = ThrottleLimits()
  /// What becomes of reads that fail.
  public var readErrorPolicy = ErrorPolicy.report
  /// What becomes of everything else that fails: writes, flushes, discards, write-zeroes.
  public var writeErrorPolicy = ErrorPolicy.enospc

  /// A writable disk with the default cache mode and no serial number.
  public init() {}
}

/// Counts of a backend since it was made.
public struct BlockStatistics: Equatable, Sendable {
  /// Requests completed without error, by operation.
  public var reads: UInt64 = 0, writes: UInt64 = 0, flushes: UInt64 = 0
  /// Discard and write-zeroes requests completed without error; a discard that the host did not take counts too.
  public var discards: UInt64 = 0, zeroes: UInt64 = 0
  /// Bytes moved by reads and writes.
  public var readBytes: UInt64 = 0, writtenBytes: UInt64 = 0
  /// Requests completed with an error.
  public var errors: UInt64 = 0
  /// Requests that went to the host as a part of another one.
  public var merged: UInt64 = 0

  /// Nothing done.
  public init() {}
}
