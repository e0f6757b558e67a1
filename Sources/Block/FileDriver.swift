// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import EventLoop
import Glibc
import HostSystem

/// A raw image: the disk's byte N is the file's byte N.
///
/// Requests go to the engine as they are, from and to guest memory. With O_DIRECT those that miss the file's alignment
/// take a detour through an aligned buffer (`BouncedRequest`), off the hot path.
public final class FileDriver: BlockDriver {
  private let image: ImageFile
  let engine: IOEngine
  let alignment: IOAlignment
  let descriptor: Int32
  private let sink = Sink()
  private lazy var bouncer = Bouncer(driver: self)
  /// Requests that the engine has, bounced ones not included.
  private(set) var directInFlight = 0

  private final class Sink: IOCompletionSink {
    unowned(unsafe) var driver: FileDriver!
    override func completed(_ operation: UnsafeMutablePointer<IOOperation>) { driver.completed(operation) }
  }

  /// Serves `image` by `engine`.
  /// - Parameter alignment: what requests must keep to, where it is to be stricter than the file itself wants.
  public init(image: consuming ImageFile, engine: IOEngine, alignment: IOAlignment? = nil) {
    self.alignment = alignment ?? image.alignment
    descriptor = image.descriptor.number
    self.image = image
    self.engine = engine
    super.init()
    sink.driver = self
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
    case .discard, .writeZeroes:
      request.pointee.result = -EOPNOTSUPP
      return completeLater(request)
    }
    if alignment != .none, bouncer.isBusy || !isAligned(request) { return bouncer.submit(request) }
    start(request)
  }

  /// Hands a request that needs no detour to the engine; `io.opcode` is set.
  @inline(__always)
  func start(_ request: UnsafeMutablePointer<BlockRequest>) {
    request.pointee.io.forceUnitAccess = request.pointee.forceUnitAccess
    request.pointee.io.descriptor = descriptor
    request.pointee.io.offset = request.pointee.offset
    request.pointee.io.iovecs = request.pointee.iovecs
    request.pointee.io.iovecCount = request.pointee.iovecCount
    request.pointee.io.byteCount = Int(request.pointee.byteCount)
    request.pointee.io.sink = Unmanaged.passUnretained(sink)
    request.pointee.io.context = UnsafeMutableRawPointer(request)
    directInFlight += 1
    withUnsafeMutablePointer(to: &request.pointee.io) { engine.submit($0) }
  }

  private func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
    guard let context = operation.pointee.context else { return }
    directInFlight -= 1
    finish(context.assumingMemoryBound(to: BlockRequest.self), operation.pointee.result)
    if alignment != .none && directInFlight == 0 { bouncer.pump() }
  }

  @inline(__always)
  func finish(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    request.pointee.result = result
    complete(request)
  }

  /// Whether direct I/O takes the request as it is.
  func isAligned(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
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

  /// Whether a write covers some block only in part.
  func changesPartOfBlock(_ request: UnsafeMutablePointer<BlockRequest>) -> Bool {
    request.pointee.operation == .write
      && (request.pointee.offset | request.pointee.byteCount) & UInt64(alignment.offset - 1) != 0
  }
}
