// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import CLinux
import EventLoop
import Glibc
import HostSystem

/// A raw image: the disk's byte N is the file's byte N.
///
/// Requests go to the engine as they are, from and to guest memory. With O_DIRECT those that miss the file's alignment
/// take a detour through an aligned buffer (`Bouncer`), off the hot path; discard and write-zeroes are `RangeServer`'s.
public final class FileDriver: BlockDriver {
  private let image: ImageFile
  // Length of the file in bytes.
  private var fileBytes: UInt64
  private(set) var engine: IOEngine
  // The same object, for the hot path, which counts no references.
  private var engineReference: Unmanaged<IOEngine>
  private let makeEngine: EngineMaker?
  let alignment: IOAlignment
  let descriptor: Int32
  /// Whether the kernel makes single writes of this file durable (`FileFacts.hasDurableWrites`).
  private let hasDurableWrites: Bool
  /// Whether durable writes need no flush after them.
  private(set) var hasNativeFUA: Bool
  private let sink = Sink()
  private(set) lazy var bouncer = Bouncer(driver: self)
  private lazy var durableWrites = DurableWrites(driver: self)
  private lazy var ranges = RangeServer(driver: self)
  // The same object twice: owned here, and unmanaged for the hot path.
  private var merger: RequestMerger?
  private var mergerReference: Unmanaged<RequestMerger>?
  private let merges: Bool
  // Of mergers on loops that the driver has left.
  private var mergedBefore: UInt64 = 0
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
  /// - Parameter makeEngine: makes the engine on another loop that the backend moves to; without it the backend stays.
  /// - Parameter companion: makes the engine for what `engine` does not support (discard and write-zeroes, with engines
  ///   that only read and write), when it is first needed. Without one such a discard is answered with EOPNOTSUPP, and
  ///   zeroes are written.
  /// - Parameter alignment: what requests must keep to, where it is to be stricter than the file itself wants.
  /// - Parameter hasDurableWrites: false where the kernel refuses to make a single write of the file durable; a flush
  ///   follows each then.
  /// - Parameter merge: whether requests of a batch that continue each other go as one (`BlockConfiguration.merge`).
  public init(
    image: consuming ImageFile, engine: IOEngine, makeEngine: EngineMaker? = nil, companion: EngineMaker? = nil,
    alignment: IOAlignment? = nil, hasDurableWrites: Bool = true, merge: Bool = true
  ) {
    self.makeEngine = makeEngine
    makeCompanion = companion
    merges = merge
    self.alignment = alignment ?? image.alignment
    descriptor = image.descriptor.number
    fileBytes = image.byteCount
    self.image = image
    self.engine = engine
    engineReference = Unmanaged.passUnretained(engine)
    self.hasDurableWrites = hasDurableWrites
    hasNativeFUA = engine.hasNativeFUA && hasDurableWrites
    super.init()
    sink.driver = self
    makeMerger()
  }

  private func makeMerger() {
    guard merges else { return }
    let new = RequestMerger(driver: self, engine: engine)
    merger = new
    mergerReference = Unmanaged.passUnretained(new)
  }

  /// Whole blocks of the image: a part of a block at its end cannot be written without making the file longer.
  public override var byteCount: UInt64 { fileBytes - fileBytes % UInt64(logicalBlockBytes) }

  /// A block device has the length that it has.
  public override func resize(to byteCount: UInt64) throws(SystemError) {
    guard byteCount % UInt64(logicalBlockBytes) == 0, byteCount <= UInt64(Int.max) else {
      throw SystemError("ftruncate", code: EINVAL)
    }
    _ = try checked("ftruncate") { clinux_ftruncate(descriptor, Int(byteCount)) }
    fileBytes = byteCount
  }

  public override var logicalBlockBytes: Int { max(512, alignment.offset) }
  public override var physicalBlockBytes: Int { max(image.physicalBlockBytes, logicalBlockBytes) }

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    switch request.pointee.operation {
    case .read: request.pointee.io.opcode = .read
    case .write: request.pointee.io.opcode = .write
    case .flush:
      prepare(request)
      directInFlight += 1
      return withUnsafeMutablePointer(to: &request.pointee.io) { flush($0) }
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
    prepare(request)
    directInFlight += 1
    if request.pointee.forceUnitAccess && !hasNativeFUA { durableWrites.prepare(request) }
    guard let mergerReference else {
      engineReference._withUnsafeGuaranteedRef { engine in
        withUnsafeMutablePointer(to: &request.pointee.io) { engine.submit($0) }
      }
      return
    }
    mergerReference._withUnsafeGuaranteedRef { $0.submit(request) }
  }

  @inline(__always)
  private func prepare(_ request: UnsafeMutablePointer<BlockRequest>) {
    request.pointee.io.forceUnitAccess = request.pointee.forceUnitAccess
    request.pointee.io.descriptor = descriptor
    request.pointee.io.offset = request.pointee.offset
    request.pointee.io.iovecs = request.pointee.iovecs
    request.pointee.io.iovecCount = request.pointee.iovecCount
    request.pointee.io.byteCount = Int(request.pointee.byteCount)
    request.pointee.io.sink = Unmanaged.passUnretained(sink)
    request.pointee.io.context = UnsafeMutableRawPointer(request)
    request.pointee.io.request = UnsafeRawPointer(request)
  }

  /// Hands over an operation that takes no part in merging, behind everything that came before it.
  func carry(_ operation: UnsafeMutablePointer<IOOperation>, by other: IOEngine? = nil) {
    merger?.closeRun()
    (other ?? engine).submit(operation)
  }

  /// Makes an operation a flush and hands it over. An engine that does not flush, or finds out by trying that it cannot
  /// (Linux AIO before Linux 4.18), leaves that to the companion.
  func flush(_ operation: UnsafeMutablePointer<IOOperation>) {
    let other = engine(for: .flush)
    operation.pointee.opcode = .flush
    operation.pointee.mark = other != nil && other !== engine
    carry(operation, by: other)
  }

  /// Whether a flush that the engine refused is tried again by the companion.
  @inline(never)
  func flushesAgain(_ operation: UnsafeMutablePointer<IOOperation>) -> Bool {
    guard operation.pointee.opcode == .flush, operation.pointee.result == -EINVAL, !operation.pointee.mark,
      let other = engine(for: .flush), other !== engine
    else { return false }
    operation.pointee.mark = true
    other.submit(operation)
    return true
  }

  public override var mergedRequestCount: UInt64 { mergedBefore + (merger?.mergedCount ?? 0) }

  private func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
    guard let context = operation.pointee.context else { return }
    if operation.pointee.result != 0 && flushesAgain(operation) { return }
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

  // MARK: Loops

  public override func close() {
    engine.close()
    companion?.close()
  }

  /// What the driver leaves on a loop, to be closed there. It has nothing in flight.
  private final class Left: @unchecked Sendable {
    private let engines: [IOEngine]
    // A round of the loop that is not over may still know it.
    private let merger: RequestMerger?

    init(_ driver: FileDriver) {
      engines = [driver.engine] + (driver.companion.map { [$0] } ?? [])
      merger = driver.merger
    }

    func close() { engines.forEach { $0.close() } }
  }

  public override func attach(to loop: EventLoop) throws(SystemError) {
    if loop === engine.loop { return }
    guard let makeEngine else { throw SystemError("moving to another loop", code: EOPNOTSUPP) }
    let new = try makeEngine(loop)
    let former = engine.loop
    // Nothing here may hold the old engine when its loop gets it: it has to end there.
    let left = Unmanaged.passRetained(Left(self))
    let leftBits = UInt(bitPattern: left.toOpaque())
    mergedBefore = mergedRequestCount
    engine = new
    engineReference = Unmanaged.passUnretained(new)
    hasNativeFUA = new.hasNativeFUA && hasDurableWrites
    companion = nil
    makeMerger()
    former.execute {
      guard let pointer = UnsafeRawPointer(bitPattern: leftBits) else { return }
      Unmanaged<Left>.fromOpaque(pointer).takeRetainedValue().close()
    }
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
