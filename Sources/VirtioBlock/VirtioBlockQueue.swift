// SPDX-License-Identifier: Apache-2.0
import Block
import CLinux
import EventLoop
import Glibc
import GuestMemory
import HostSystem
import Tracing

/// One virtqueue of a virtio-blk device at work: takes chains, submits requests, fills the used ring.
///
/// Everything here runs on the device's loop. A slot is a descriptor head: its `BlockRequest`, its state and its iovecs
/// are preallocated for the queue's largest size, so a request in flight allocates nothing, at most as many are in
/// flight as the ring has entries (CVE-2016-5403), and a completion is a slot number.
final class VirtioBlockQueue: BlockClient {
  let index: Int
  /// What the guest's doorbell signals.
  let event: EventDescriptor
  private unowned(unsafe) let device: VirtioBlockDevice
  private let backend: BlockBackend
  private let memory: GuestMemory
  // The backend owns its loop and outlives the queue; unmanaged so that a completion counts no reference.
  private unowned(unsafe) let loop: EventLoop
  private let slotCount: Int
  private let iovecsPerSlot: Int
  private let requests: UnsafeMutablePointer<BlockRequest>
  private let slots: UnsafeMutablePointer<SlotState>
  private let iovecs: UnsafeMutablePointer<iovec>
  private let segments: SegmentTable
  /// The rings; nil while the device is not running.
  private var ring: SplitQueue?
  private var context = VirtioBlkContext(capacitySectors: 0, isReadOnly: true, serial: (0, 0, 0))
  private(set) var inFlight = 0
  private var isPaused = false { didSet { updateHold() } }
  /// Whether the device may reach guest memory (PCI command register).
  private var isBusMaster = false { didSet { updateHold() } }
  /// No chain may be taken, for one of the two reasons: the one flag that the hot path looks at.
  private var isHeld = true
  private var whenReturned: (() -> Void)?
  private var publisher: Publisher?
  // The same object, for the hot path: set with it, valid as long as it.
  private var publish: Unmanaged<Publisher>?
  private var doorbell: DoorbellHandler?

  /// Publishes the used ring at the end of the batch, so that completions of one round cost one interrupt.
  private final class Publisher: DeferredCall {
    unowned(unsafe) let queue: VirtioBlockQueue
    init(queue: VirtioBlockQueue) {
      self.queue = queue
      super.init(loop: queue.loop)
    }
    override func run() { queue.publishUsed() }
  }

  private final class DoorbellHandler: DescriptorHandler, @unchecked Sendable {
    unowned(unsafe) let queue: VirtioBlockQueue
    init(queue: VirtioBlockQueue) {
      self.queue = queue
      super.init(descriptor: queue.event.number, isPollable: true)
    }
    override func ready() {
      queue.event.consume()
      Tracing.record(.doorbell, value: UInt32(queue.index))
      queue.process()
    }
    override func poll() -> Bool { queue.poll() }
    override func pollBegin() { queue.ring?.suppressNotifications() }
    override func pollEnd() -> Bool { queue.pollEnd() }
  }

  init(index: Int, device: VirtioBlockDevice, backend: BlockBackend, memory: GuestMemory, entriesMax: UInt16)
    throws(SystemError)
  {
    self.index = index
    self.device = device
    self.backend = backend
    self.memory = memory
    loop = backend.loop
    event = try EventDescriptor()
    slotCount = Int(entriesMax)
    iovecsPerSlot = Int(entriesMax) + Limit.spareIovecs
    requests = .allocate(capacity: slotCount)
    slots = .allocate(capacity: slotCount)
    // calloc: pages of slots that are never used are never touched, so they cost no resident memory.
    iovecs = calloc(slotCount * iovecsPerSlot, MemoryLayout<iovec>.stride)!.assumingMemoryBound(to: iovec.self)
    segments = SegmentTable(slotCount: slotCount)
    super.init()
    requests.initialize(repeating: BlockRequest(), count: slotCount)
    slots.initialize(repeating: SlotState(status: UnsafeMutableRawPointer(iovecs)), count: slotCount)
    for slot in 0..<slotCount {
      requests[slot].slot = Int32(slot)
      requests[slot].client = Unmanaged.passUnretained(self)
    }
  }

  deinit {
    requests.deallocate()
    slots.deallocate()
    free(iovecs)
    segments.deallocate()
  }

  // MARK: Life cycle, on the loop

  /// The disk has another length.
  func setCapacity(sectors: UInt64) { context.capacitySectors = sectors }

  /// Begins to serve the rings; whatever was made available before is taken at once.
  func start(_ ring: SplitQueue, context: VirtioBlkContext) {
    self.ring = ring
    self.context = context
    isPaused = false
    if publisher == nil {
      let new = Publisher(queue: self)
      publisher = new
      publish = Unmanaged.passUnretained(new)
    }
    if doorbell == nil {
      let handler = DoorbellHandler(queue: self)
      doorbell = handler
      loop.add(handler)
    }
    process()
  }

  /// Takes no more chains; completions that are still out are dropped when they come, as the rings are the guest's
  /// again (a late completion must not touch them). The caller waits until `inFlight` is 0.
  func stop() { ring = nil }

  /// Stops, and calls `whenReturned` once, as soon as nothing is out; a start before that never happens.
  func stop(whenReturned: @escaping () -> Void) {
    stop()
    if inFlight == 0 { return whenReturned() }
    self.whenReturned = whenReturned
  }

  /// The last request of a queue that stopped or paused is back.
  private func becameIdle() {
    let told = whenReturned
    whenReturned = nil
    told?()
    device.queueBecameQuiet()
  }

  /// Takes no more chains, but still returns what is out to the guest.
  func pause() { isPaused = true }

  /// Takes chains again.
  func resume() {
    isPaused = false
    process()
  }

  /// Takes chains only while the device may reach guest memory. What is out comes back all the same: its buffers are with
  /// the kernel, which cannot be told.
  func setBusMaster(_ isMaster: Bool) {
    isBusMaster = isMaster
    if isMaster { process() }
  }

  private func updateHold() { isHeld = isPaused || !isBusMaster }

  /// Nothing is in flight and nothing will be taken.
  var isIdle: Bool { inFlight == 0 && (ring == nil || isPaused) }

  /// Lets go of the loop; nothing is in flight.
  func close() {
    ring = nil
    if let doorbell { loop.remove(doorbell) }
    doorbell = nil
  }

  // MARK: Taking chains

  private func poll() -> Bool {
    guard !isHeld, ring?.hasPending == true else { return false }
    // A guest that is polled rings no doorbell; this is how the loop hears of its requests.
    Tracing.record(.doorbell, value: UInt32(index))
    process(whilePolling: true)
    return true
  }

  /// The loop stops polling: the guest has to ring again, and what came in between is taken now.
  private func pollEnd() -> Bool {
    guard requestNotifications() else { return false }
    process()
    return true
  }

  /// Asks for notifications again after a time without.
  /// - Returns: whether a chain slipped in before the request was visible.
  private func requestNotifications() -> Bool {
    guard ring != nil, !isHeld else { return false }
    ring!.requestNotifications()
    return ring!.hasPending
  }

  /// Takes everything that the guest made available, as one batch. While the loop polls, notifications stay off.
  func process(whilePolling: Bool = false) {
    guard ring != nil, !isHeld else { return }
    loop.beginBatch()
    do throws(QueueFault) {
      var isPromised = false
      repeat {
        ring!.suppressNotifications()
        var pending = try ring!.pendingCount()
        // Where our own flags lie over avail.idx, it goes to and fro with them: without this, for ever.
        if isPromised && pending == 0 { throw .availableIndexWentBack }
        isPromised = true
        while pending > 0 {
          while pending > 0 {
            try takeOne()
            pending -= 1
          }
          pending = try ring!.pendingCount()
        }
      } while !whilePolling && requestNotifications()
    } catch {
      device.queueBroke(index, fault: error)
    }
    loop.endBatch()
  }

  @inline(__always)
  private func takeOne() throws(QueueFault) {
    let head = try ring!.takeHead()
    let slot = slots + Int(head)
    if slot.pointee.isInFlight { throw .headInFlight(head) }
    let slotIovecs = iovecs + Int(head) * iovecsPerSlot
    let chain = try DescriptorChain(
      head: head, queue: ring!, memory: memory, iovecs: slotIovecs, capacity: iovecsPerSlot)
    let request = requests + Int(head)
    let action = try parseVirtioBlkRequest(
      chain, iovecs: slotIovecs, context: context, request: request, slot: slot,
      segments: segments)
    switch action {
    case .submit:
      slot.pointee.isInFlight = true
      inFlight += 1
      backend.submit(request)
    case .answer(let status, let written):
      finish(head: head, status: slot.pointee.status, value: status, written: written)
    }
  }

  // MARK: Giving them back

  override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
    let slot = slots + Int(request.pointee.slot)
    if slot.pointee.segmentsLeft > 0 { return segmentCompleted(request, slot) }
    giveBack(request, slot)
  }

  @inline(__always)
  private func giveBack(_ request: UnsafeMutablePointer<BlockRequest>, _ slot: UnsafeMutablePointer<SlotState>) {
    let head = Int(request.pointee.slot)
    slot.pointee.isInFlight = false
    inFlight -= 1
    defer { if inFlight == 0 && (ring == nil || isPaused) { becameIdle() } }
    // After a reset the rings are the guest's again, and the completion only counts.
    guard ring != nil else { return }
    let result = request.pointee.result
    if result == 0 {
      finish(
        head: UInt16(truncatingIfNeeded: head), status: slot.pointee.status, value: RequestStatus.ok,
        written: slot.pointee.writtenOnSuccess)
    } else {
      finish(
        head: UInt16(truncatingIfNeeded: head), status: slot.pointee.status, value: requestStatus(forResult: result),
        written: slot.pointee.writtenOnFailure)
    }
  }

  /// Submits the next segment of a discard or write-zeroes request, unless one has failed or the rings are gone.
  @inline(never)
  private func segmentCompleted(
    _ request: UnsafeMutablePointer<BlockRequest>, _ slot: UnsafeMutablePointer<SlotState>
  ) {
    if ring != nil && request.pointee.result == 0 && takeSegment(request, slot, segments) {
      return backend.submit(request)
    }
    slot.pointee.segmentsLeft = 0
    giveBack(request, slot)
  }

  @inline(__always)
  private func finish(head: UInt16, status: UnsafeMutableRawPointer, value: UInt8, written: UInt32) {
    clinux_store8(status, value)
    ring!.push(head: head, writtenBytes: written)
    publish.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.deferToBatchEnd() }
  }

  private func publishUsed() {
    guard ring != nil, ring!.publish() else { return }
    Tracing.record(.interrupt, value: Tracing.tag(of: self))
    device.interruptQueue(index)
  }
}
