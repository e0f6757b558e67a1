// SPDX-License-Identifier: Apache-2.0
// AsyncIO: engines that carry operations on host files to the kernel and back, and the choice among them. It knows nothing
// of devices or images.
import EventLoop
import Glibc
import Tracing

/// What carries operations to the kernel: the base class of all engines. Drivers know no more than this.
///
/// An operation that was submitted is completed exactly once, through its sink, on the loop's thread and never from
/// inside `submit` or `cancel`. It, its iovecs and the memory behind them belong to the engine until then. A base class,
/// because a virtual call is the cheapest dynamic call there is. Loop thread only, where nothing else is said.
open class IOEngine {
  /// The loop that completions are delivered on.
  public final let loop: EventLoop
  /// Operations that were taken and are not completed.
  public private(set) final var inFlightCount = 0
  // Operations whose result is known, to be delivered by `later` and not from inside a call of the submitter.
  private final var finished = OperationQueue()
  private final var later: Later!

  private final class Later: BottomHalf, @unchecked Sendable {
    unowned(unsafe) var engine: IOEngine!
    override func run() { engine.deliverFinished() }
  }

  /// For subclasses.
  public init(deliveringOn loop: EventLoop) {
    self.loop = loop
    later = Later(loop: loop)
    later.engine = self
  }

  /// Its owner has closed it.
  deinit { later.cancel() }

  /// What users call it (`aio=`).
  open var name: String { "" }

  /// Whether the engine does such operations itself; what it does not do goes to a thread pool.
  open func supports(_ opcode: IOOpcode) -> Bool { true }

  /// Whether a write with `forceUnitAccess` is durable when it completes. Where it is not, the submitter flushes after it.
  open var hasNativeFUA: Bool { true }

  /// What the engine uses of what the host offers, in words; for reports.
  open var features: [String] { [] }

  /// Operations on this descriptor will come: the engine may prepare for it. The descriptor stays open until `detach`.
  open func attach(descriptor: Int32) {}

  /// No operations on this descriptor come any more, and none is in flight.
  open func detach(descriptor: Int32) {}

  /// Most operations will read and write this memory, which stays mapped as long as the engine lives: it may be pinned once
  /// instead of for each operation. All of it is resident afterwards. Before the first operation, once.
  /// - Returns: 0, or a negative errno value where the engine or the host cannot; operations work all the same.
  open func pin(_ memory: [UnsafeRawBufferPointer]) -> Int32 { -EOPNOTSUPP }

  /// Takes an operation. Subclasses call `began`, and later `finish` or `finishLater` once.
  open func submit(_ operation: UnsafeMutablePointer<IOOperation>) {}

  /// Asks that an operation of this engine that is not completed end soon. Who wins is open: it completes exactly once, with
  /// -ECANCELED, or as if nothing had been asked.
  open func cancel(_ operation: UnsafeMutablePointer<IOOperation>) {}

  /// Lets everything in flight complete, in nested rounds of the loop, and gives the kernel's side back. Nothing may be
  /// submitted any more. Subclasses that own something in the kernel override this, and call it first.
  open func close() {
    while inFlightCount > 0 { loop.runOnce(mayBlock: true) }
  }

  // MARK: For subclasses

  /// Counts an operation that was taken.
  @inline(__always)
  final func began(_ operation: UnsafeMutablePointer<IOOperation>) {
    operation.pointee.transferred = 0
    operation.pointee.isCancelling = false
    inFlightCount += 1
  }

  /// Completes an operation whose `result` is set. Not from inside `submit` or `cancel`.
  @inline(__always)
  final func finish(_ operation: UnsafeMutablePointer<IOOperation>) {
    inFlightCount -= 1
    Tracing.record(.completed, request: operation.pointee.request)
    operation.pointee.sink.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.completed(operation) }
  }

  /// Completes an operation in one of the next rounds of the loop.
  final func finishLater(_ operation: UnsafeMutablePointer<IOOperation>, _ result: Int32) {
    operation.pointee.result = result
    finished.append(operation)
    later.schedule()
  }

  /// A nested round that a sink runs goes on with the rest, so the rest is announced before each delivery.
  private func deliverFinished() {
    guard let operation = finished.takeFirst() else { return }
    if !finished.isEmpty { later.schedule() }
    finish(operation)
  }
}
