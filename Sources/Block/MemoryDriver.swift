// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import HostSystem

/// A disk in this process's memory, gone with it. Requests are served as they come and complete at the end of their
/// batch; every operation there is works, and flushes have nothing to do.
public final class MemoryDriver: BlockDriver {
  private var mapping: Mapping

  /// What the kernel frees at a time, bytes.
  private static let pageBytes: UInt64 = 4096

  /// Makes a disk of `byteCount` bytes (at least one sector) that begins with `initial` (at most as many) and goes on
  /// with zeroes. Pages take memory when they are first written.
  /// - Throws: where there is not enough address space.
  public init(byteCount: UInt64, initial: [UInt8] = []) throws(SystemError) {
    precondition(byteCount >= BlockBackend.sectorBytes && UInt64(initial.count) <= byteCount)
    guard byteCount <= UInt64(Int.max) else { throw SystemError("mmap", code: ENOMEM) }
    mapping = try Mapping.anonymous(byteCount: Int(byteCount))
    super.init()
    memcpy(mapping.base, initial, initial.count)
  }

  public override var byteCount: UInt64 { UInt64(mapping.byteCount) }
  public override var supportsDiscard: Bool { true }
  public override var supportsWriteZeroes: Bool { true }
  public override var discardGranularityBytes: Int { Int(Self.pageBytes) }

  public override func resize(to byteCount: UInt64) throws(SystemError) {
    guard byteCount <= UInt64(Int.max) else { throw SystemError("mremap", code: ENOMEM) }
    let new = Int(byteCount)
    if new < mapping.byteCount {
      // What is beyond the end in the last page must not come back with the next resize.
      let pageEnd = (new + Int(Self.pageBytes) - 1) / Int(Self.pageBytes) * Int(Self.pageBytes)
      memset(mapping.base + new, 0, min(pageEnd, mapping.byteCount) - new)
    }
    try mapping.resize(byteCount: new)
  }

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    switch request.pointee.operation {
    case .read: copy(request, toDisk: false)
    case .write: copy(request, toDisk: true)
    case .flush: break
    case .discard: freePages(request)
    case .writeZeroes: zero(request)
    }
    request.pointee.result = 0
    completeLater(request)
  }

  private func copy(_ request: UnsafeMutablePointer<BlockRequest>, toDisk: Bool) {
    guard let iovecs = request.pointee.iovecs else { return }
    var position = mapping.base + Int(request.pointee.offset)
    for index in 0..<Int(request.pointee.iovecCount) {
      let piece = iovecs[index]
      guard let base = piece.iov_base, piece.iov_len > 0 else { continue }
      if toDisk { memcpy(position, base, piece.iov_len) } else { memcpy(base, position, piece.iov_len) }
      position += piece.iov_len
    }
  }

  /// Gives whole pages back, which read as zeroes then; parts of pages keep their content.
  /// - Returns: the pages, or nil where the range has none or the kernel keeps them.
  @discardableResult
  private func freePages(_ request: UnsafeMutablePointer<BlockRequest>) -> Range<UInt64>? {
    let start = (request.pointee.offset + Self.pageBytes - 1) / Self.pageBytes * Self.pageBytes
    let end = (request.pointee.offset + request.pointee.byteCount) / Self.pageBytes * Self.pageBytes
    guard start < end else { return nil }
    let result = clinux_madvise(mapping.base + Int(start), Int(end - start), MADV_DONTNEED)
    return result == 0 ? start..<end : nil
  }

  /// Zeroes a range; whole pages are given back where that is allowed.
  private func zero(_ request: UnsafeMutablePointer<BlockRequest>) {
    let range = request.pointee.offset..<request.pointee.offset + request.pointee.byteCount
    guard request.pointee.mayUnmap, let pages = freePages(request) else { return clear(range) }
    clear(range.lowerBound..<pages.lowerBound)
    clear(pages.upperBound..<range.upperBound)
  }

  private func clear(_ range: Range<UInt64>) {
    memset(mapping.base + Int(range.lowerBound), 0, range.count)
  }
}
