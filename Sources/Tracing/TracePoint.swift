// SPDX-License-Identifier: Apache-2.0
import CTracing

/// What happens to a request on its way from a guest's doorbell to the guest's interrupt, and around it.
///
/// Each event has a time, a thread, a request (0 where it concerns none in particular) and a value of 32 bits, whose
/// meaning depends on the point.
public enum TracePoint: UInt32, CaseIterable, Sendable {
  /// A device hears of a guest's doorbell. Value: virtio the queue's number, AHCI the slots written to PxCI.
  case doorbell
  /// A vCPU leaves the guest for the machine, or goes back. Value: a `TraceExit`.
  case exit
  /// A device hands a request to the block layer. Value: the `Tracing.tag` of the device's queue or port.
  case request
  /// An operation is queued for the kernel. Value: a `TraceQueueing`. Request 0: an entry of the loop's own.
  case queued
  /// A thread writes a loop's eventfd. Value: the loop's tag.
  case notified
  /// A loop's sleep is over. Value: the loop's tag.
  case woken
  /// Work is handed to the kernel: recorded just before the system call. With a request, that one alone, by a thread
  /// that does it or a call that names it; without, the oldest entries of the loop's ring, as many as the value says.
  case submitted
  /// An operation is done and its loop has heard of it. A request that needed several completes as often; the last one
  /// counts.
  case completed
  /// A device tells the guest of completions: recorded just before. Value: the tag of the queue or port.
  case interrupt
  /// The guest acknowledges an interrupt: it reads virtio's ISR or writes PxIS. Value: the bits.
  case acknowledged
  /// A loop is about to sleep. Value: the loop's tag.
  case sleeping
}

/// The value of `TracePoint.exit`.
public enum TraceExit: UInt32, Sendable {
  /// The machine is done, and the guest goes on.
  case end
  /// The guest reads a port.
  case portRead
  /// The guest writes a port.
  case portWrite
  /// The guest reads device memory.
  case memoryRead
  /// The guest writes device memory.
  case memoryWrite
}

/// The value of `TracePoint.queued`: how the operation gets to the kernel.
public enum TraceQueueing: UInt32, Sendable {
  /// By a `submitted` that names its request.
  case named
  /// As an entry of the loop's ring, in its turn.
  case entry
  /// As a part of the operation that its thread queues next (merged requests).
  case rider
}

/// One event of a trace.
public struct TraceEvent: Equatable, Sendable {
  /// Nanoseconds of the host's monotonic clock.
  public var time: UInt64
  /// What happened.
  public var point: TracePoint
  /// Which request it concerns: the address of its slot, which later requests have again; 0 for none in particular.
  public var request: UInt64
  /// See `TracePoint`.
  public var value: UInt32

  /// Describes an event.
  public init(time: UInt64, point: TracePoint, request: UInt64 = 0, value: UInt32 = 0) {
    self.time = time
    self.point = point
    self.request = request
    self.value = value
  }
}

/// Tracing in the whole process: on or off for all of it.
public enum Tracing {
  /// Whether events are recorded. Any thread.
  @inlinable @inline(__always)
  public static var isOn: Bool { _slowPath(ctracing_is_enabled() != 0) }

  /// Records an event in the calling thread's ring where tracing is on; a load, a test and a branch where it is off. Any
  /// thread; allocates nothing after the thread's first event of a trace and takes no lock.
  /// - Parameter request: the request's slot, by whose address the trace names it.
  @inlinable @inline(__always)
  public static func record(
    _ point: TracePoint, request: UnsafeRawPointer? = nil, value: @autoclosure () -> UInt32 = 0
  ) {
    if isOn { ctracing_append(point.rawValue, UInt64(UInt(bitPattern: request)), value()) }
  }

  /// Thirty-two bits that tell one object (a queue, a port, a loop) from the others of its kind.
  @inlinable @inline(__always)
  public static func tag(of object: UnsafeRawPointer) -> UInt32 {
    // Objects are aligned to 16 bytes, so the bits left out hold nothing, and 64 GiB of heap are told apart.
    UInt32(truncatingIfNeeded: UInt(bitPattern: object) >> 4)
  }

  /// The tag of an object whose reference is not counted for it.
  @inlinable @inline(__always)
  public static func tag(of object: AnyObject) -> UInt32 { tag(of: Unmanaged.passUnretained(object).toOpaque()) }
}
