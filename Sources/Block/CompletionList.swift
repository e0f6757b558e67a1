// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Tracing

/// Requests whose result is known already, in order, delivered together at the end of the loop's batch.
///
/// What is delivered is taken first, and what clients submit meanwhile waits for the next round: a client that answers
/// each completion with another request keeps nobody else from the loop. A client may run the loop again; the nested
/// round delivers what is left, so it may wait for requests of its own batch. Loop thread only.
final class CompletionList: DeferredCall {
  private let backend: Unmanaged<BlockBackend>
  // Requests that have come since the last delivery began.
  private var first: UnsafeMutablePointer<BlockRequest>?
  private var last: UnsafeMutablePointer<BlockRequest>?
  // Requests that are being delivered.
  private var dueFirst: UnsafeMutablePointer<BlockRequest>?
  private var dueLast: UnsafeMutablePointer<BlockRequest>?
  // The list is in the batch's or the next round's hands already.
  private var isAnnounced = false
  private let nextRound: NextRound
  private let rest: Rest

  init(backend: BlockBackend, loop: EventLoop) {
    self.backend = Unmanaged.passUnretained(backend)
    nextRound = NextRound(loop: loop)
    rest = Rest(loop: loop)
    super.init(loop: loop)
    nextRound.list = self
    rest.list = self
  }

  /// Delivers in the next round, in a batch of its own.
  private final class NextRound: BottomHalf, @unchecked Sendable {
    unowned(unsafe) var list: CompletionList!
    override func run() { list.run() }
  }

  /// Delivers, in a nested round, what an outer round has not come to.
  private final class Rest: DeferredCall {
    unowned(unsafe) var list: CompletionList!
    override func run() { list.deliver() }
  }

  /// Adds a request whose `result` is set. Loop thread.
  func append(_ request: UnsafeMutablePointer<BlockRequest>) {
    request.pointee.next = nil
    if let last { last.pointee.next = request } else { first = request }
    last = request
    if !isAnnounced { announce() }
  }

  // Apart, so that the way of all other requests saves no registers for it.
  @inline(never)
  private func announce() {
    isAnnounced = true
    // Outside a batch the call would run at once, inside `submit`. A vCPU's batch ends before the loop has looked.
    if loop.isInBatch && loop.isOnLoop && dueFirst == nil { deferToBatchEnd() } else { nextRound.schedule() }
  }

  override func run() {
    isAnnounced = false
    if let dueLast { dueLast.pointee.next = first } else { dueFirst = first }
    if let last { dueLast = last }
    first = nil
    last = nil
    deliver()
  }

  private func deliver() {
    if dueFirst != dueLast { rest.deferToBatchEnd() }
    while let request = dueFirst {
      dueFirst = request.pointee.next
      if dueFirst == nil { dueLast = nil }
      Tracing.record(.completed, request: request)
      backend._withUnsafeGuaranteedRef { $0.driverCompleted(request) }
    }
  }
}
