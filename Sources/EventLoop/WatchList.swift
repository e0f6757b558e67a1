// SPDX-License-Identifier: Apache-2.0
import Glibc
import Synchronization

/// The handlers of a loop: who is watched, who asked for a change, who is ready.
///
/// Any thread writes what it wants into the handler and puts it on the list of changes; the loop thread takes the list
/// and brings its monitor in line. Adding, changing and removing may race: the last wish counts, whatever the order in
/// which the list is read. All but `noteChange` on the loop thread.
final class WatchList {
  /// A place in the list. The generation tells an event of the handler that is here from one of an earlier handler, or of an
  /// earlier arming of the same.
  private struct Slot {
    var handler: DescriptorHandler?
    var generation: UInt32
  }

  /// Most handlers: their number fits in the 16 bits that an event names them with.
  static let handlersMax = 1 << 16

  // Handlers with changes, each retained once: a stack that any thread pushes to, taken whole by the loop thread.
  private let changes = Atomic<UInt>(0)
  private var slots: [Slot] = []
  private var freeSlots: [Int] = []
  /// Handlers that can look for work in memory.
  private(set) var pollable: [DescriptorHandler] = []
  private var readyFirst: Unmanaged<DescriptorHandler>?
  private var readyLast: Unmanaged<DescriptorHandler>?

  deinit {
    takeChanges { _ in }
  }

  // MARK: Changes

  /// Puts a handler on the list of changes, after its `wanted` was stored. Any thread; the loop must be woken afterwards.
  func noteChange(_ handler: DescriptorHandler) {
    // Acquire-release: pairs with the exchange in `takeChanges`, after which the loop reads what we want.
    if handler.isChanged.exchange(true, ordering: .acquiringAndReleasing) { return }
    let pointer = UInt(bitPattern: Unmanaged.passRetained(handler).toOpaque())
    var head = changes.load(ordering: .relaxed)
    while true {
      handler.nextChanged = head
      // Release: pairs with the acquiring exchange in `takeChanges`.
      let (isDone, now) = changes.compareExchange(expected: head, desired: pointer, ordering: .releasing)
      if isDone { return }
      head = now
    }
  }

  /// Whether changes wait.
  var hasChanges: Bool { changes.load(ordering: .relaxed) != 0 }

  /// Hands every handler with changes to `body`; the order does not matter, since each says what it wants in the end.
  func takeChanges(_ body: (DescriptorHandler) -> Void) {
    if !hasChanges { return }
    var next = changes.exchange(0, ordering: .acquiring)
    while let pointer = UnsafeRawPointer(bitPattern: next) {
      let handler = Unmanaged<DescriptorHandler>.fromOpaque(pointer).takeRetainedValue()
      next = handler.nextChanged
      // Before `wanted` is read: whoever changes it from here on puts the handler on the list again.
      _ = handler.isChanged.exchange(false, ordering: .acquiringAndReleasing)
      body(handler)
    }
  }

  // MARK: Who is watched

  /// Gives a handler a place.
  func insert(_ handler: DescriptorHandler) {
    if let free = freeSlots.popLast() {
      handler.slot = free
      slots[free].handler = handler
    } else {
      precondition(slots.count < Self.handlersMax, "a loop has too many handlers")
      handler.slot = slots.count
      slots.append(Slot(handler: handler, generation: 0))
    }
    if handler.isPollable { pollable.append(handler) }
  }

  /// Takes a handler out; it is not called any more.
  func remove(_ handler: DescriptorHandler) {
    renew(handler)
    slots[handler.slot].handler = nil
    freeSlots.append(handler.slot)
    handler.slot = -1
    if handler.isPollable { pollable.removeAll { $0 === handler } }
    if handler.isReady { unlinkReady(handler) }
  }

  /// Names a handler in an event: its place, and its generation.
  func token(of handler: DescriptorHandler) -> UInt64 {
    UInt64(slots[handler.slot].generation) << 16 | UInt64(handler.slot)
  }

  /// The handler of a token; nil where the event is of a handler, or an arming, that is gone.
  func handler(of token: UInt64) -> DescriptorHandler? {
    let slot = Int(token & 0xffff)
    guard slot < slots.count, slots[slot].generation == UInt32(truncatingIfNeeded: token >> 16) else { return nil }
    return slots[slot].handler
  }

  /// Makes every token of the handler that was given out before invalid.
  func renew(_ handler: DescriptorHandler) { slots[handler.slot].generation &+= 1 }

  /// Asks for every watched handler, by place.
  func forEach(_ body: (DescriptorHandler) -> Void) {
    for slot in slots { if let handler = slot.handler { body(handler) } }
  }

  // MARK: Who is ready

  /// Notes that a handler's descriptor is ready, until `takeReady`. Once for any number of times: a nested round goes on
  /// with what an outer one has found, and nothing is called twice for one event.
  func markReady(_ handler: DescriptorHandler) {
    if handler.isReady { return }
    handler.isReady = true
    handler.nextReady = nil
    let reference = Unmanaged.passUnretained(handler)
    if let readyLast { readyLast._withUnsafeGuaranteedRef { $0.nextReady = reference } } else { readyFirst = reference }
    readyLast = reference
  }

  /// The next ready handler, oldest first.
  func takeReady() -> DescriptorHandler? {
    guard let reference = readyFirst else { return nil }
    let handler = reference.takeUnretainedValue()
    readyFirst = handler.nextReady
    if readyFirst == nil { readyLast = nil }
    handler.isReady = false
    return handler
  }

  /// Whether `takeReady` has something: what an outer round has found and not come to, for instance.
  var hasReady: Bool { readyFirst != nil }

  private func unlinkReady(_ handler: DescriptorHandler) {
    var others: [DescriptorHandler] = []
    while let other = takeReady() { if other !== handler { others.append(other) } }
    others.forEach(markReady)
  }
}
