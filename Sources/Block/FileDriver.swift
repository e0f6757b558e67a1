// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import EventLoop
import Glibc
import HostSystem

/// A raw image: the disk's byte N is the file's byte N.
///
/// Requests go to the engine as they are, from and to guest memory. With O_DIRECT those that miss the file's alignment
/// take a detour through an aligned buffer (`Bouncer`), off the hot path; discard and write-zeroes are `RangeServer`'s.
public final class FileDriver: BlockDriver {
  private let image: ImageFile
  let engine: IOEngine
  let alignment: IOAlignment
  let descriptor: Int32
  /// Whether the engine's durable writes need no flush after them.
  let hasNativeFUA: Bool
  private let sink = Sink()
  private(set) lazy var bouncer = Bouncer(driver: self)
  private lazy var durableWrites = DurableWrites(driver: self)
  private lazy var ranges = RangeServer(driver: self)
  // The same object twice: owned here, and unmanaged for the hot path.
  private var merger: RequestMerger?
  private var mergerReference: Unmanaged<RequestMerger>?
  private let makeCompanion: EngineMaker?
  private var companion: IOEngine?
  /// Requests that an engine has, bounced ones not included.
  var directInFlight = 0

  /// Makes an engine on a loop, on the loop's thread.
  public typealias EngineMaker = (EventLoop) throws(SystemError) -> IOEngine

  private final class Sink: IOCompletionSink {
    unowned(unsafe) var driver: FileDriver!
    override func completed(_ operation: UnsafeMutablePointer<IOOperation>) { driver.completed(operation) }
  }

  /// Serves `image` by `engine`.
  /// - Parameter companion: makes the engine for what `engine` does not support (discard and write-zeroes, with engines
  ///   that only read and write), when it is first needed. Without one such a discard is answered with EOPNOTSUPP, and
  ///   zeroes are written.
  /// - Parameter alignment: what requests must keep to, where it is to be stricter than the file itself wants.
  /// - Parameter merge: whether requests of a batch that continue each other go as one (`BlockConfiguration.merge`).
  public init(
    image: consuming ImageFile, engine: IOEngine, companion: EngineMaker? = nil, alignment: IOAlignment? = nil,
    merge: Bool = true
  ) {
    makeCompanion = companion
    self.alignment = alignment ?? image.alignment
    descriptor = image.descriptor.number
    self.image = image
    self.engine = engine
    hasNativeFUA = engine.hasNativeFUA
    super.init()
    sink.driver = self
    if merge {
      let new = RequestMerger(driver: self, engine: engine)
      merger = new
      mergerReference = Unmanaged.passUnretained(new)
    }
  }

  /// Whole blocks of the image: a part of a block at its end cannot be written without making the file longer.
  public override var byteCount: UInt64 { image.byteCount - image.byteCount % UInt64(logicalBlockBytes) }
  public override var logicalBlockBytes: Int { max(512, alignment.offset) }
  public override var physicalBlockBytes: Int { max(image.physicalBlockBytes, logicalBlockBytes) }

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    switch request.pointee.operation {
    case .read: request.pointee.io.opcode = .read
    case .write: request.pointee.io.opcode = .write
    case .flush:
      request.pointee.io.opcode = .flush
      return start(request)
    case .discard: request.pointee.io.opcode = .discard
    case .writeZeroes: request.pointee.io.opcode = .writeZeroes
    }
    if alignment != .none, bouncer.isBusy || !isDirect(request) { return bouncer.submit(request) }
    start(request)
  }

  public override var supportsDiscard: Bool { engine.supports(.discard) || makeCompanion != nil }
  public override var supportsWriteZeroes: Bool { true }

  /// Starts a request that needs no detour; `io.opcode` is set.
  @inline(__always)
  func start(_ request: UnsafeMutablePointer<BlockRequest>) {
    if request.pointee.operation.isRange { return ranges.serve(request) }
    request.pointee.io.forceUnitAccess = request.pointee.forceUnitAccess
    request.pointee.io.descriptor = descriptor
    request.pointee.io.offset = request.pointee.offset
    request.pointee.io.iovecs = request.pointee.iovecs
    request.pointee.io.iovecCount = request.pointee.iovecCount
    request.pointee.io.byteCount = Int(request.pointee.byteCount)
    request.pointee.io.sink = Unmanaged.passUnretained(sink)
    request.pointee.io.context = UnsafeMutableRawPointer(request)
    directInFlight += 1
    if request.pointee.forceUnitAccess && !hasNativeFUA { durableWrites.prepare(request) }
    guard let mergerReference else {
      withUnsafeMutablePointer(to: &request.pointee.io) { engine.submit($0) }
      return
    }
    mergerReference._withUnsafeGuaranteedRef { $0.submit(request) }
  }

  /// Hands over an operation that takes no part in merging, behind everything that came before it.
  func carry(_ operation: UnsafeMutablePointer<IOOperation>, by other: IOEngine? = nil) {
    merger?.closeRun()
    (other ?? engine).submit(operation)
  }

  public override var mergedRequestCount: UInt64 { merger?.mergedCount ?? 0 }

  private func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
    guard let context = operation.pointee.context else { return }
    finishDirect(context.assumingMemoryBound(to: BlockRequest.self), operation.pointee.result)
  }

  /// A request that took no detour is done.
  @inline(__always)
  func finishDirect(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    directInFlight -= 1
    finish(request, result)
    if alignment != .none && directInFlight == 0 { bouncer.pump() }
  }

  /// A request that took no detour is done without error, and is delivered at the end of the batch.
  func finishDirectLater(_ request: UnsafeMutablePointer<BlockRequest>) {
    directInFlight -= 1
    request.pointee.result = 0
    completeLater(request)
    if alignment != .none && directInFlight == 0 { bouncer.pump() }
  }

  @inline(__always)
  func finish(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    request.pointee.result = result
    complete(request)
  }

  /// The engine that does such operations: the companion for what the other one does not do; nil where there is none.
  func engine(for opcode: IOOpcode) -> IOEngine? {
    if engine.supports(opcode) { return engine }
    if companion == nil, let makeCompanion { companion = try? makeCompanion(engine.loop) }
    guard let companion, companion.supports(opcode) else { return nil }
    return companion
  }

  // MARK: Alignment

  /// Whether the request needs no detour in the step that it has come to.
  func isDirect(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    switch request.pointee.operation {
    case .read, .write: isAligned(request)
    case .flush, .discard: true
    // Whole blocks first (`RangeServer`), then, as a write, what is left at the ends.
    case .writeZeroes: request.pointee.io.opcode == .writeZeroes
    }
  }

  /// Whether direct I/O takes a read or a write as it is.
  private func isAligned(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    let unit = UInt64(alignment.offset - 1)
    if (request.pointee.offset | request.pointee.byteCount) & unit != 0 { return false }
    guard let iovecs = request.pointee.iovecs else { return true }
    let memory = UInt(alignment.memory - 1)
    for index in 0..<Int(request.pointee.iovecCount) {
      let iovec = iovecs[index]
      if UInt(bitPattern: iovec.iov_base) & memory != 0 || UInt64(iovec.iov_len) & unit != 0 { return false }
    }
    return true
  }

  /// Whether a request writes some block only in part.
  func changesPartOfBlock(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    request.pointee.operation != .read && !isWholeBlocks(request)
  }

  /// Whether a request's range begins and ends between blocks.
  func isWholeBlocks(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    (request.pointee.offset | request.pointee.byteCount) & UInt64(alignment.offset - 1) == 0
  }

  /// The blocks that lie wholly in a request's range, as bytes on the disk.
  func wholeBlocks(_ request: UnsafeMutablePointer<BlockRequest>) -> Range<UInt64> {
    let unit = UInt64(alignment.offset)
    let start = (request.pointee.offset + unit - 1) / unit * unit
    let end = (request.pointee.offset + request.pointee.byteCount) / unit * unit
    return start..<max(start, end)
  }
}
