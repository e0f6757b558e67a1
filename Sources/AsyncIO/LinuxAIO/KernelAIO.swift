// SPDX-License-Identifier: Apache-2.0
import CLinuxAIO
import Glibc
import HostSystem

/// The completion ring that the kernel keeps in the process's memory, at the address that is the context's handle.
///
/// Layout and protocol are those of fs/aio.c since Linux 2.6: a header of 32 bytes, then `nr` events; the kernel advances
/// `tail`, the reader `head`, both modulo `nr`, and equal indices mean an empty ring. One thread.
struct LinuxAIOEventRing {
  private let header: UnsafeMutablePointer<clinuxaio_ring>
  private let events: UnsafePointer<io_event>
  private let count: UInt32

  /// Finds the ring at `address`; nil where it is not of the layout that this knows, so that events have to be fetched
  /// with io_getevents.
  init?(at address: UnsafeMutableRawPointer) {
    header = address.assumingMemoryBound(to: clinuxaio_ring.self)
    let headerByteCount = MemoryLayout<clinuxaio_ring>.size
    guard header.pointee.magic == clinuxaio_ring_magic, header.pointee.incompat_features == 0,
      header.pointee.header_length == UInt32(headerByteCount), header.pointee.nr > 0
    else { return nil }
    events = UnsafePointer((address + headerByteCount).assumingMemoryBound(to: io_event.self))
    count = header.pointee.nr
  }

  @inline(__always)
  var hasEvents: Bool { clinuxaio_ring_head(header) != clinuxaio_ring_tail(header) }

  /// Copies the oldest event out and gives its place back.
  @inline(__always)
  func take() -> io_event? {
    let head = clinuxaio_ring_head(header)
    if head == clinuxaio_ring_tail(header) { return nil }
    let event = events[Int(head % count)]
    clinuxaio_ring_set_head(header, (head + 1) % count)
    return event
  }
}

/// A real Linux AIO context, by plain system calls.
public final class KernelAIO: LinuxAIOPort {
  // Both nil after `close`.
  private var event: EventDescriptor?
  private var context: aio_context_t?
  // nil where its layout is unknown, and after `close`.
  private var ring: LinuxAIOEventRing?
  // What io_getevents gave and nobody has taken; only where there is no ring to read.
  private let fetched: UnsafeMutablePointer<io_event>
  private let fetchedMax: Int
  private var fetchedNext = 0
  private var fetchedCount = 0

  /// Sets up a context for `eventCount` operations in flight.
  /// - Throws: EAGAIN where that is more than fs.aio-max-nr leaves, ENOSYS where the kernel or a filter has no AIO, ENOMEM;
  ///   what eventfd said.
  public convenience init(eventCount: Int) throws(SystemError) {
    try self.init(eventCount: eventCount) { UnsafeMutableRawPointer(bitPattern: UInt($0)) }
  }

  /// - Parameter ringAddress: where a context's ring is; tests name memory of their own.
  init(eventCount: Int, ringAddress: (aio_context_t) -> UnsafeMutableRawPointer?) throws(SystemError) {
    event = try EventDescriptor()
    var context: aio_context_t = 0
    _ = try checked("io_setup") { clinuxaio_setup(UInt32(eventCount), &context) }
    self.context = context
    ring = ringAddress(context).flatMap { LinuxAIOEventRing(at: $0) }
    fetched = .allocate(capacity: eventCount)
    fetchedMax = eventCount
    super.init()
  }

  deinit {
    close()
    fetched.deallocate()
  }

  public override var descriptor: Int32 { event?.number ?? -1 }
  public override func acknowledge() { event?.consume() }
  public override var isPollable: Bool { ring != nil }

  public override func submit(_ blocks: UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>, count: Int) -> Int32 {
    guard let context else { return -EINVAL }
    return clinuxaio_submit(context, count, blocks)
  }

  public override func cancel(_ block: UnsafeMutablePointer<iocb>) -> Int32 {
    guard let context else { return -EINVAL }
    return clinuxaio_cancel(context, block)
  }

  public override var hasEvents: Bool { ring?.hasEvents ?? fetch() }

  public override func takeEvent() -> io_event? {
    if let ring { return ring.take() }
    guard fetch() else { return nil }
    fetchedNext += 1
    return fetched[fetchedNext - 1]
  }

  public override func close() {
    guard let context else { return }
    self.context = nil
    ring = nil
    _ = clinuxaio_destroy(context)
    // After the context, whose operations signal it.
    event = nil
  }

  /// Asks the kernel for events where none are left.
  /// - Returns: whether there are some.
  private func fetch() -> Bool {
    if fetchedNext < fetchedCount { return true }
    guard let context else { return false }
    fetchedNext = 0
    repeat { fetchedCount = Int(clinuxaio_getevents(context, fetchedMax, fetched)) } while fetchedCount == -Int(EINTR)
    return fetchedCount > 0
  }
}
