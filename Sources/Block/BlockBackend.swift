// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import CLinux
import EventLoop
import Glibc
import HostSystem

public enum CacheMode: String, CaseIterable, Sendable { case none, writeback, writethrough, directsync, unsafe }
public struct BlockConfiguration: Sendable {
  public var cache = CacheMode.writeback
  public var isReadOnly = false
  public var serial = ""
  public init() {}
}
open class BlockDriver {
  public unowned(unsafe) var backend: BlockBackend!
  public init() {}
  open var byteCount: UInt64 { 0 }
  open func submit(_ request: UnsafeMutablePointer<BlockRequest>) {}
}
public final class BlockBackend {
  public let loop: EventLoop
  public let driver: BlockDriver
  public let byteCount: UInt64
  public let isReadOnly: Bool
  public let writeCacheDefault: Bool
  public var writeCacheEnabled: Bool
  public let logicalBlockBytes = 512
  public let physicalBlockBytes = 512
  public let serial: String
  public private(set) var inFlight = 0
  public init(driver: BlockDriver, loop: EventLoop, configuration: BlockConfiguration) {
    self.driver = driver
    self.loop = loop
    byteCount = driver.byteCount & ~511
    isReadOnly = configuration.isReadOnly
    writeCacheDefault = configuration.cache != .writethrough && configuration.cache != .directsync
    writeCacheEnabled = writeCacheDefault
    serial = configuration.serial
    driver.backend = self
  }
  @inlinable public func submit(_ request: UnsafeMutablePointer<BlockRequest>) { submitImpl(request) }
  @usableFromInline func submitImpl(_ request: UnsafeMutablePointer<BlockRequest>) {
    inFlight += 1
    request.pointee.forceUnitAccess = request.pointee.operation == .write && !writeCacheEnabled
    driver.submit(request)
  }
  public func driverCompleted(_ request: UnsafeMutablePointer<BlockRequest>) {
    inFlight -= 1
    request.pointee.client!._withUnsafeGuaranteedRef { $0.completed(request) }
  }
}
public final class NullDriver: BlockDriver {
  let bytes: UInt64
  var first: UnsafeMutablePointer<BlockRequest>?
  var last: UnsafeMutablePointer<BlockRequest>?
  let completer: Completer
  final class Completer: DeferredCall, @unchecked Sendable {
    unowned(unsafe) var driver: NullDriver!
    override func run() { driver.complete() }
  }
  public init(byteCount: UInt64, loop: EventLoop) {
    bytes = byteCount
    completer = Completer(loop: loop)
    super.init()
    completer.driver = self
  }
  public override var byteCount: UInt64 { bytes }
  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    request.pointee.next = nil
    request.pointee.result = 0
    if let last { last.pointee.next = request } else { first = request }
    last = request
    completer.loop.deferToBatchEnd(completer)
  }
  func complete() {
    var list = first
    first = nil
    last = nil
    while let r = list {
      list = r.pointee.next
      backend.driverCompleted(r)
    }
  }
}
public struct ImageFile: ~Copyable {
  let fd: OwnedDescriptor
  let bytes: UInt64
  public static func open(path: String, cache: CacheMode, readOnly: Bool) throws -> ImageFile {
    let direct = cache == .none || cache == .directsync
    let fd = try OwnedDescriptor.open(path, flags: (readOnly ? O_RDONLY : O_RDWR) | (direct ? clinux_O_DIRECT : 0))
    let size = lseek(fd.number, 0, SEEK_END)
    return ImageFile(fd: fd, bytes: UInt64(size))
  }
}
public final class FileDriver: BlockDriver {
  let image: ImageFile
  let engine: IOUringEngine
  let sink = Sink()
  final class Sink: IOCompletionSink {
    unowned(unsafe) var driver: FileDriver!
    override func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
      let r = operation.pointee.context!.assumingMemoryBound(to: BlockRequest.self)
      r.pointee.result = operation.pointee.result
      driver.backend.driverCompleted(r)
    }
  }
  public init(image: consuming ImageFile, loop: EventLoop) throws {
    engine = try IOUringEngine(loop: loop)
    self.image = image
    super.init()
    sink.driver = self
  }
  public override var byteCount: UInt64 { image.bytes }
  public override func submit(_ r: UnsafeMutablePointer<BlockRequest>) {
    switch r.pointee.operation {
    case .read: r.pointee.io.opcode = .read
    case .write: r.pointee.io.opcode = .write
    default: r.pointee.io.opcode = .flush
    }
    r.pointee.io.descriptor = image.fd.number
    r.pointee.io.offset = r.pointee.offset
    r.pointee.io.iovecs = r.pointee.iovecs
    r.pointee.io.iovecCount = r.pointee.iovecCount
    r.pointee.io.byteCount = Int(r.pointee.byteCount)
    r.pointee.io.forceUnitAccess = r.pointee.forceUnitAccess
    r.pointee.io.sink = Unmanaged.passUnretained(sink)
    r.pointee.io.context = UnsafeMutableRawPointer(r)
    engine.submit(&r.pointee.io)
  }
}
