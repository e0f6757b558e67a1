// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import Glibc

/// Serves requests that direct I/O cannot take as they are, through aligned buffers.
///
/// Reads, and writes whose range is aligned, only need their data in a better place. A write of a part of a block needs
/// the block read first, changed and written back whole. Nothing else may run meanwhile, or the write-back would undo
/// what was written beside it: such a write waits until everything before it is done, and everything after it waits for
/// it. Zeroes come here with what `RangeServer` left of them: a part of a block at either end. Loop thread only;
/// allocates, which is why guests do well to keep to the block size that the disk tells them.
final class Bouncer {
  /// Requests on the detour at a time, so that no guest can make the host allocate more than that many windows.
  static let activeMax = 16

  private unowned(unsafe) let driver: FileDriver
  // Requests that have to wait here.
  private var waiting = RequestQueue()
  private var active: [BouncedRequest] = []
  private var isExclusive = false

  init(driver: FileDriver) { self.driver = driver }

  /// Whether requests have to queue up here even if they are aligned.
  var isBusy: Bool { isExclusive || !waiting.isEmpty }

  /// Takes a request, aligned or not.
  func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    waiting.append(request)
    pump()
  }

  /// Starts what may start: something that others waited for is done.
  func pump() {
    while let request = waiting.first, !isExclusive {
      let isDirect = driver.isDirect(request)
      if !isDirect {
        if active.count == Self.activeMax { return }
        if driver.changesPartOfBlock(request) {
          guard active.isEmpty && driver.directInFlight == 0 else { return }
          isExclusive = true
        }
      }
      _ = waiting.takeFirst()
      if isDirect {
        driver.start(request)
      } else {
        let bounced = BouncedRequest(request, bouncer: self, driver: driver)
        active.append(bounced)
        bounced.serveWindow()
      }
    }
  }

  /// A request has gone its way. Called from inside the request's completion, so the object must live to the end of
  /// this.
  fileprivate func done(_ bounced: BouncedRequest, _ result: Int32) {
    guard let index = active.firstIndex(where: { $0 === bounced }) else { return }
    withExtendedLifetime(active.remove(at: index)) {
      isExclusive = false
      driver.finish(bounced.request, result)
      pump()
    }
  }
}

/// One request on its detour: an aligned window that moves over the request's range, and the operation under way in it.
private final class BouncedRequest: IOCompletionSink {
  /// Most bytes in a window. Longer requests go in several steps: a guest may name the same memory many times, and its
  /// request is then as long as the disk.
  static let windowBytesMax = 1 << 20

  let request: UnsafeMutablePointer<BlockRequest>
  private unowned(unsafe) let bouncer: Bouncer
  private unowned(unsafe) let driver: FileDriver
  private let buffer: UnsafeMutableRawPointer
  private let operation = UnsafeMutablePointer<IOOperation>.allocate(capacity: 1)
  private let vector = UnsafeMutablePointer<iovec>.allocate(capacity: 1)
  /// First byte on the disk after the request's blocks.
  private let end: UInt64
  private let isZeroes: Bool
  /// Most bytes of this request's windows.
  private let windowBytes: Int
  /// The window: first byte on the disk, and length.
  private var start: UInt64
  private var byteCount: Int
  /// Where the window's data begins in the request's scatter list.
  private var iovecIndex = 0
  private var iovecOffset = 0

  init(_ request: UnsafeMutablePointer<BlockRequest>, bouncer: Bouncer, driver: FileDriver) {
    self.request = request
    self.bouncer = bouncer
    self.driver = driver
    let unit = UInt64(driver.alignment.offset)
    isZeroes = request.pointee.operation == .writeZeroes
    start = request.pointee.offset / unit * unit
    end = (request.pointee.offset + request.pointee.byteCount + unit - 1) / unit * unit
    // Parts of blocks at the ends are all that is left of a range of zeroes.
    if isZeroes && start == request.pointee.offset { start = driver.wholeBlocks(request).upperBound }
    windowBytes = isZeroes ? Int(unit) : Self.windowBytesMax
    byteCount = Int(min(end - start, UInt64(windowBytes)))
    buffer = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: max(driver.alignment.memory, 16))
    super.init()
    operation.initialize(to: IOOperation())
    operation.pointee.request = UnsafeRawPointer(request)
  }

  deinit {
    buffer.deallocate()
    operation.deallocate()
    vector.deallocate()
  }

  /// The part of the window that is the request's data: bytes from the window's start.
  private var data: Range<Int> {
    let from = max(start, request.pointee.offset)
    let to = min(start + UInt64(byteCount), request.pointee.offset + request.pointee.byteCount)
    return Int(from - start)..<Int(to - start)
  }

  /// Serves the window.
  func serveWindow() {
    if request.pointee.operation == .write && data.count == byteCount {
      fill()
      transfer(.write)
    } else {
      transfer(.read)
    }
  }

  private func transfer(_ opcode: IOOpcode) {
    vector.initialize(to: iovec(iov_base: buffer, iov_len: byteCount))
    operation.pointee.opcode = opcode
    operation.pointee.forceUnitAccess = opcode == .write && request.pointee.forceUnitAccess && driver.hasNativeFUA
    operation.pointee.descriptor = driver.descriptor
    operation.pointee.offset = start
    operation.pointee.iovecs = vector
    operation.pointee.iovecCount = 1
    operation.pointee.byteCount = byteCount
    operation.pointee.sink = Unmanaged.passUnretained(self)
    driver.carry(operation)
  }

  override func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
    if operation.pointee.result != 0 && driver.flushesAgain(operation) { return }
    guard operation.pointee.result == 0 && operation.pointee.opcode != .flush else {
      bouncer.done(self, operation.pointee.result)
      return
    }
    if operation.pointee.opcode == .read {
      if request.pointee.operation != .read {
        fill()
        transfer(.write)
        return
      }
      copy(toGuest: true)
    }
    start += UInt64(byteCount)
    if isZeroes { start = max(start, driver.wholeBlocks(request).upperBound) }
    byteCount = Int(min(end - start, UInt64(windowBytes)))
    if byteCount > 0 {
      serveWindow()
    } else if request.pointee.operation != .read && request.pointee.forceUnitAccess && !driver.hasNativeFUA {
      driver.flush(operation)
    } else {
      bouncer.done(self, 0)
    }
  }

  /// Puts the request's data into the window.
  private func fill() {
    if isZeroes { memset(buffer + data.lowerBound, 0, data.count) } else { copy(toGuest: false) }
  }

  /// Copies the request's part of the window, and steps on in the scatter list.
  private func copy(toGuest: Bool) {
    guard let iovecs = request.pointee.iovecs else { return }
    var position = buffer + data.lowerBound
    var left = data.count
    while left > 0 && iovecIndex < Int(request.pointee.iovecCount) {
      let iovec = iovecs[iovecIndex]
      let count = min(left, iovec.iov_len - iovecOffset)
      if count > 0, let base = iovec.iov_base {
        if toGuest { memcpy(base + iovecOffset, position, count) } else { memcpy(position, base + iovecOffset, count) }
      }
      position += count
      left -= count
      iovecOffset += count
      if iovecOffset == iovec.iov_len {
        iovecIndex += 1
        iovecOffset = 0
      }
    }
  }
}
