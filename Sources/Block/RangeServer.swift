// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import Glibc

/// Serves discard and write-zeroes requests of a `FileDriver`, step by step in the request's own operation: the whole
/// blocks of the range by fallocate, zeroes written by hand where the file system knows no better, then a flush where
/// the request is to be durable. Parts of blocks at the ends of a zeroed range go to the `Bouncer` afterwards.
///
/// The step that a request is in is its `io.opcode`. A discard is advice: only whole blocks, and a file that cannot
/// take it keeps its content. Loop thread only; allocates nothing after the first zeroes written by hand.
final class RangeServer: IOCompletionSink {
  /// Bytes of zeroes in memory, written again and again.
  static let zeroBufferBytes = 64 << 10
  /// Most bytes of zeroes in one write.
  static let zeroWriteBytesMax = 1 << 20
  private static let zeroIovecs = zeroWriteBytesMax / zeroBufferBytes

  private unowned(unsafe) let driver: FileDriver
  // What the file said of the two ways once; it is not asked again.
  private var mayPunch = true
  private var mayZeroRange = true
  private var zeroBuffer: UnsafeMutableRawPointer?
  // The scatter list of zeroes is the engine's during a write, so it serves one request at a time; others wait here.
  private let zeroList = UnsafeMutablePointer<iovec>.allocate(capacity: zeroIovecs)
  private var isWritingZeroes = false
  private var waiting = RequestQueue()

  init(driver: FileDriver) { self.driver = driver }

  deinit {
    zeroBuffer?.deallocate()
    zeroList.deallocate()
  }

  // MARK: Steps

  /// Takes a request, from the start. Its completion is never inside this call.
  func serve(_ request: UnsafeMutablePointer<BlockRequest>) {
    let whole = driver.wholeBlocks(request)
    request.pointee.io.opcode = request.pointee.operation == .discard ? .discard : .writeZeroes
    request.pointee.io.offset = whole.lowerBound
    request.pointee.io.byteCount = Int(whole.upperBound - whole.lowerBound)
    request.pointee.io.mayUnmap = request.pointee.mayUnmap
    request.pointee.io.forceUnitAccess = false
    request.pointee.io.descriptor = driver.descriptor
    request.pointee.io.iovecs = nil
    request.pointee.io.iovecCount = 0
    request.pointee.io.sink = Unmanaged.passUnretained(self)
    request.pointee.io.context = UnsafeMutableRawPointer(request)
    request.pointee.io.request = UnsafeRawPointer(request)
    if whole.isEmpty {
      if request.pointee.operation == .writeZeroes && request.pointee.byteCount > 0 { return toEdges(request) }
      return answer(request, 0)
    }
    driver.directInFlight += 1
    if request.pointee.operation == .discard { discard(request) } else { zero(request) }
  }

  private func discard(_ request: UnsafeMutablePointer<BlockRequest>) {
    guard let engine = driver.engine(for: .discard) else { return leave(request, -EOPNOTSUPP) }
    guard mayPunch else { return leave(request, 0) }
    withUnsafeMutablePointer(to: &request.pointee.io) { driver.carry($0, by: engine) }
  }

  /// Zeroes what is left of the whole blocks in the best way that has not failed. What must stay allocated is never
  /// punched.
  private func zero(_ request: UnsafeMutablePointer<BlockRequest>) {
    if request.pointee.io.mayUnmap && !mayPunch { request.pointee.io.mayUnmap = false }
    guard request.pointee.io.mayUnmap || mayZeroRange, let engine = driver.engine(for: .writeZeroes) else {
      return waitToWriteZeroes(request)
    }
    withUnsafeMutablePointer(to: &request.pointee.io) { driver.carry($0, by: engine) }
  }

  override func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
    guard let context = operation.pointee.context else { return }
    let request = context.assumingMemoryBound(to: BlockRequest.self)
    let result = operation.pointee.result
    switch operation.pointee.opcode {
    case .discard:
      if Self.isForGood(result) { mayPunch = false }
      if result == 0 { wholeBlocksDone(request) } else { finish(request, Self.isNotTaken(result) ? 0 : result) }
    case .writeZeroes:
      if result == 0 { wholeBlocksDone(request) } else { zeroingFailed(request, result) }
    case .write: zeroesWritten(request, result)
    case .flush:
      if result == 0 {
        durable(request)
      } else if !driver.flushesAgain(operation) {
        finish(request, result)
      }
    case .read: break
    }
  }

  private func zeroingFailed(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    guard Self.isNotTaken(result) else { return finish(request, result) }
    if request.pointee.io.mayUnmap {
      if Self.isForGood(result) { mayPunch = false }
      request.pointee.io.mayUnmap = false
      zero(request)
    } else {
      if Self.isForGood(result) { mayZeroRange = false }
      waitToWriteZeroes(request)
    }
  }

  private func wholeBlocksDone(_ request: UnsafeMutablePointer<BlockRequest>) {
    guard request.pointee.forceUnitAccess else { return durable(request) }
    withUnsafeMutablePointer(to: &request.pointee.io) { driver.flush($0) }
  }

  private func durable(_ request: UnsafeMutablePointer<BlockRequest>) {
    if request.pointee.operation == .writeZeroes && !driver.isWholeBlocks(request) {
      driver.directInFlight -= 1
      toEdges(request)
    } else {
      finish(request, 0)
    }
  }

  /// Hands the parts of blocks at the ends to the bouncer: `io.opcode` tells it how far the request has come.
  private func toEdges(_ request: UnsafeMutablePointer<BlockRequest>) {
    request.pointee.io.opcode = .write
    driver.bouncer.submit(request)
  }

  private func finish(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    driver.finishDirect(request, result)
  }

  /// Answers a request that was counted and that no engine has.
  private func leave(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    driver.directInFlight -= 1
    answer(request, result)
  }

  private func answer(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    request.pointee.result = result
    driver.completeLater(request)
  }

  // MARK: Zeroes by hand

  private func waitToWriteZeroes(_ request: UnsafeMutablePointer<BlockRequest>) {
    request.pointee.io.opcode = .write
    // From here on the operation is a window, and the first one is empty.
    request.pointee.io.byteCount = 0
    if isWritingZeroes { waiting.append(request) } else { writeZeroes(request) }
  }

  /// Writes zeroes behind the window that the operation holds.
  private func writeZeroes(_ request: UnsafeMutablePointer<BlockRequest>) {
    isWritingZeroes = true
    let buffer = zeroes()
    let start = request.pointee.io.offset + UInt64(request.pointee.io.byteCount)
    let count = Int(min(driver.wholeBlocks(request).upperBound - start, UInt64(Self.zeroWriteBytesMax)))
    var left = count
    var entries = 0
    while left > 0 {
      let piece = min(left, Self.zeroBufferBytes)
      zeroList[entries] = iovec(iov_base: buffer, iov_len: piece)
      entries += 1
      left -= piece
    }
    request.pointee.io.offset = start
    request.pointee.io.byteCount = count
    request.pointee.io.iovecs = zeroList
    request.pointee.io.iovecCount = Int32(entries)
    withUnsafeMutablePointer(to: &request.pointee.io) { driver.carry($0) }
  }

  private func zeroesWritten(_ request: UnsafeMutablePointer<BlockRequest>, _ result: Int32) {
    let end = request.pointee.io.offset + UInt64(request.pointee.io.byteCount)
    if result == 0 && end < driver.wholeBlocks(request).upperBound { return writeZeroes(request) }
    isWritingZeroes = false
    if let next = waiting.takeFirst() { writeZeroes(next) }
    if result == 0 { wholeBlocksDone(request) } else { finish(request, result) }
  }

  private func zeroes() -> UnsafeMutableRawPointer {
    if let zeroBuffer { return zeroBuffer }
    let alignment = max(IOAlignment.page.memory, driver.alignment.memory)
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: Self.zeroBufferBytes, alignment: alignment)
    memset(buffer, 0, Self.zeroBufferBytes)
    zeroBuffer = buffer
    return buffer
  }

  // MARK: What the kernel's answers mean

  /// The file or its disk has no such operation, or not for this range.
  private static func isNotTaken(_ result: Int32) -> Bool { result == -EINVAL || isForGood(result) }

  /// It will not have it for any other range either.
  private static func isForGood(_ result: Int32) -> Bool {
    result == -EOPNOTSUPP || result == -ENOTTY || result == -ENOSYS
  }
}
