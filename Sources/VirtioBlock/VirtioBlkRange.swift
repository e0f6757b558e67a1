// SPDX-License-Identifier: Apache-2.0
import Block
import CLinux
import Glibc

/// One segment of a discard or write-zeroes request (virtio 1.3 §5.2.6, struct virtio_blk_discard_write_zeroes), copied
/// out of guest memory.
struct RangeSegment {
  var sector: UInt64
  var sectorCount: UInt32
  var flags: UInt32

  /// The device may unmap the range; for write-zeroes only.
  static let unmapFlag: UInt32 = 1
  /// Bytes of a segment in guest memory.
  static let bytes: UInt64 = 16
}

/// The segments of a queue's requests: room for `Limit.rangeSegmentsMax` in each slot.
struct SegmentTable {
  private let base: UnsafeMutablePointer<RangeSegment>

  /// calloc: pages of slots that are never used cost no resident memory.
  init(slotCount: Int) {
    base = calloc(slotCount * Limit.rangeSegmentsMax, MemoryLayout<RangeSegment>.stride)!
      .assumingMemoryBound(to: RangeSegment.self)
  }

  func deallocate() { free(base) }

  /// The segments of the slot that a request is in.
  func segments(of request: UnsafeMutablePointer<BlockRequest>) -> UnsafeMutablePointer<RangeSegment> {
    base + Int(request.pointee.slot) * Limit.rangeSegmentsMax
  }
}

/// Reads the segments of a discard or write-zeroes request, once, checks them all, and sets the slot's request up for
/// the first one (virtio 1.3 §5.2.6.2).
///
/// A flag that the device does not know, or unmap with discard, is UNSUPP; what is too long, too many or outside the
/// disk is IOERR, and then nothing of the request is done. Empty segments are allowed and skipped.
/// - Parameter data: the readable buffers behind the header, `byteCount` bytes in `iovecCount` iovecs.
@inline(never)
func parseRangeRequest(
  _ operation: BlockOperation, data: UnsafeMutablePointer<iovec>, iovecCount: Int, byteCount: UInt64,
  context: borrowing VirtioBlkContext, request: UnsafeMutablePointer<BlockRequest>,
  slot: UnsafeMutablePointer<SlotState>, segments table: SegmentTable
) -> VirtioBlkAction {
  if context.isReadOnly { return .answer(status: RequestStatus.ioError, written: slot.pointee.writtenOnFailure) }
  guard operation == .discard ? context.hasDiscard : context.hasWriteZeroes else {
    return .answer(status: RequestStatus.unsupported, written: slot.pointee.writtenOnFailure)
  }
  guard byteCount > 0, byteCount % RangeSegment.bytes == 0,
    byteCount / RangeSegment.bytes <= UInt64(Limit.rangeSegmentsMax)
  else { return .answer(status: RequestStatus.ioError, written: slot.pointee.writtenOnFailure) }
  let segments = table.segments(of: request)
  let count = Int(byteCount / RangeSegment.bytes)
  gather(data, iovecCount: iovecCount, into: UnsafeMutableRawPointer(segments), byteCount: Int(byteCount))
  let known = operation == .discard ? 0 : RangeSegment.unmapFlag
  for index in 0..<count where segments[index].flags & ~known != 0 {
    return .answer(status: RequestStatus.unsupported, written: slot.pointee.writtenOnFailure)
  }
  for index in 0..<count {
    let segment = segments[index]
    guard segment.sectorCount <= Limit.rangeSectorsMax, segment.sector <= context.capacitySectors,
      UInt64(segment.sectorCount) <= context.capacitySectors - segment.sector
    else { return .answer(status: RequestStatus.ioError, written: slot.pointee.writtenOnFailure) }
  }
  request.pointee.operation = operation
  request.pointee.iovecCount = 0
  slot.pointee.nextSegment = 0
  slot.pointee.segmentsLeft = UInt8(count)
  return takeSegment(request, slot, table)
    ? .submit : .answer(status: RequestStatus.ok, written: slot.pointee.writtenOnFailure)
}

/// Sets the request up for the next segment that is not empty.
/// - Returns: whether there is one.
@inline(never)
func takeSegment(
  _ request: UnsafeMutablePointer<BlockRequest>, _ slot: UnsafeMutablePointer<SlotState>, _ table: SegmentTable
) -> Bool {
  while slot.pointee.segmentsLeft > 0 {
    let segment = table.segments(of: request)[Int(slot.pointee.nextSegment)]
    slot.pointee.nextSegment += 1
    slot.pointee.segmentsLeft -= 1
    if segment.sectorCount == 0 { continue }
    request.pointee.offset = segment.sector * Limit.sectorBytes
    request.pointee.byteCount = UInt64(segment.sectorCount) * Limit.sectorBytes
    request.pointee.mayUnmap = segment.flags & RangeSegment.unmapFlag != 0
    return true
  }
  return false
}

private func gather(
  _ iovecs: UnsafeMutablePointer<iovec>, iovecCount: Int, into memory: UnsafeMutableRawPointer, byteCount: Int
) {
  var copied = 0
  for index in 0..<iovecCount where copied < byteCount {
    let piece = min(byteCount - copied, iovecs[index].iov_len)
    if piece > 0 { memcpy(memory + copied, iovecs[index].iov_base, piece) }
    copied += piece
  }
}
