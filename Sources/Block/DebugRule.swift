// SPDX-License-Identifier: Apache-2.0
import Glibc

/// A point on a request's way at which the rules of a `DebugDriver` may act, with QEMU's names (`blkdebug`).
///
/// Those that happen here: `none`, once before the first request; `read_aio` for each read; `write_aio` and then `pwritev`
/// for each write; `pwritev_zero` for each write-zeroes request; `pwritev_done` after either; `flush_to_os` and then
/// `flush_to_disk` for each flush. The others are of image formats: rules for them are taken, and never act.
public enum DebugEvent: String, CaseIterable, Sendable {
  case none = "none"
  case readAIO = "read_aio"
  case writeAIO = "write_aio"
  case flushToOS = "flush_to_os"
  case flushToDisk = "flush_to_disk"
  case pwritev = "pwritev"
  case pwritevZero = "pwritev_zero"
  case pwritevDone = "pwritev_done"

  private static let readWay = [readAIO], writeWay = [writeAIO, pwritev], zeroWay = [pwritevZero]
  private static let flushWay = [flushToOS, flushToDisk]

  /// What happens on a request's way to the disk, in order.
  static func way(of operation: BlockOperation) -> [DebugEvent] {
    switch operation {
    case .read: readWay
    case .write: writeWay
    case .writeZeroes: zeroWay
    case .flush: flushWay
    case .discard: []
    }
  }

  /// Whether a breakpoint can hold a request here: it is on the way to the disk.
  var canHold: Bool { self != .none && self != .pwritevDone }

  /// Events of image formats, and of what is done there beside a request.
  static let foreign: Set<String> = [
    "l1_update", "l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table", "l1_shrink_write_table",
    "l1_shrink_free_l2_clusters", "l2_load", "l2_update", "l2_update_compressed", "l2_alloc_cow_read",
    "l2_alloc_write", "read_backing_aio", "read_compressed", "write_compressed", "vmstate_load", "vmstate_save",
    "cow_read", "cow_write", "cor_write", "reftable_load", "reftable_grow", "reftable_update", "refblock_load",
    "refblock_update", "refblock_update_part", "refblock_alloc", "refblock_alloc_hookup", "refblock_alloc_write",
    "refblock_alloc_write_blocks", "refblock_alloc_write_table", "refblock_alloc_switch_table", "cluster_alloc",
    "cluster_alloc_bytes", "cluster_free", "cluster_alloc_space", "pwritev_rmw_head", "pwritev_rmw_after_head",
    "pwritev_rmw_tail", "pwritev_rmw_after_tail", "empty_image_prepare",
  ]
}

/// One rule of a `DebugDriver`.
public struct DebugRule: Equatable, Sendable {
  /// An error for requests.
  public struct Injection: Equatable, Sendable {
    /// The errno value, positive; 0 for none: the rule is in the way of others, and does nothing.
    public var code = EIO
    /// Fails before the batch ends, or as a disk does, later; a guest sees no difference.
    public var immediately = false
    /// The rule is gone when it has acted on one request.
    public var once = false
    /// Nanoseconds that a request waits before it goes on, or fails.
    public var delayNs: UInt64 = 0
    /// The sector that a request must touch; nil for any request.
    public var sector: UInt64?
    /// Kinds of requests that fail.
    public var operations = FaultOperations.any

    /// Every request fails with EIO.
    public init() {}
  }

  /// What it does.
  public enum Action: Equatable, Sendable {
    /// From its event on requests fail, until an event makes other rules the ones that fail requests.
    case injectError(Injection)
    /// The driver is in this state after the event.
    case setState(Int)
  }

  /// When it acts; nil for an event that does not happen here.
  public var event: DebugEvent?
  /// The state in which it acts; 0 for any.
  public var state = 0
  /// What it does.
  public var action: Action

  /// Makes a rule for any state.
  public init(_ event: DebugEvent?, state: Int = 0, _ action: Action) {
    self.event = event
    self.state = state
    self.action = action
  }
}
