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
  private let engine: IOUringEngine
  private let alignment: IOAlignment
  private let sink = Sink()
  private lazy var bouncer = Bouncer(
    descriptor: image.descriptor.number, alignment: alignment, byteCount: image.byteCount, engine: engine
  ) { [unowned self] request, result in finish(request, result) }
  /// Requests that the engine has, bounced ones not included.
  private var directInFlight = 0

  private final class Sink: IOCompletionSink {
    unowned(unsafe) var driver: FileDriver!
    override func completed(_ operation: UnsafeMutablePointer<IOOperation>) { driver.completed(operation) }
  }

  /// Serves `image` on the loop's ring.
  /// - Parameter alignment: what requests must keep to, where it is to be stricter than the file itself wants.
  public init(image: consuming ImageFile, engine: IOUringEngine, alignment: IOAlignment? = nil) {
    self.alignment = alignment ?? image.alignment
    self.image = image
    self.engine = engine
    super.init()
    sink.driver = self
  }

  public override var byteCount: UInt64 { image.byteCount }
  public override var logicalBlockBytes: Int { max(512, alignment.offset) }
  public override var physicalBlockBytes: Int { max(image.physicalBlockBytes, logicalBlockBytes) }

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    let opcode: IOOpcode
    switch request.pointee.operation {
    case .read: opcode = .read
    case .write: opcode = .write
    case .flush: opcode = .flush
    case .discard, .writeZeroes:
      request.pointee.result = -EOPNOTSUPP
      completeLater(request)
      return
    }
    request.pointee.io.opcode = opcode
    if alignment != .none, opcode != .flush, bouncer.isBusy || !isAligned(request) {
      bouncer.submit(request, isAligned: isAligned(request), directInFlight: directInFlight)
      return
    }
    request.pointee.io.forceUnitAccess = request.pointee.forceUnitAccess
    request.pointee.io.descriptor = image.descriptor.number
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
    if alignment != .none && directInFlight == 0 { bouncer.directBecameIdle() }
  }

  @inline(__always)
  private func finish(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    request.pointee.result = result
    complete(request)
  }

  /// Whether direct I/O takes the request as it is.
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
}
