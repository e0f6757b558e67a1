// SPDX-License-Identifier: Apache-2.0
import Block
import CLinux
import Glibc

/// What a slot knows of its request beside the `BlockRequest` that the block layer sees.
struct SlotState {
  /// The descriptor chain's head is with us; it may not come again before it went back (CVE-2026-45782).
  var isInFlight = false
  /// Of a discard or write-zeroes request: the segment to be served next, and how many there are from there on.
  var nextSegment: UInt8 = 0, segmentsLeft: UInt8 = 0
  /// Bytes to report in the used ring when the request succeeds, the status byte included.
  var writtenOnSuccess: UInt32 = 0
  /// Bytes to report when nothing but the status byte was written: they count from the first byte that may be written
  /// on (virtio 1.3 §2.7.8.2), so behind a buffer that was left alone the status byte is none of them (CVE-2024-8612).
  var writtenOnFailure: UInt32 = 0
  /// Where the status byte goes: the last byte of the last writable buffer.
  var status: UnsafeMutableRawPointer
}

/// A parsed request: what the device does next. Parsing does no I/O and leaves nothing half-checked.
enum VirtioBlkAction {
  /// Submit the slot's `BlockRequest`.
  case submit
  /// Answer at once with this status byte; `written` bytes went to the guest, the status byte included.
  case answer(status: UInt8, written: UInt32)
}

/// What parsing needs to know of the disk and of what was negotiated.
struct VirtioBlkContext {
  var capacitySectors: UInt64
  var isReadOnly: Bool
  /// Whether VIRTIO_BLK_F_DISCARD and VIRTIO_BLK_F_WRITE_ZEROES were negotiated.
  var hasDiscard = false, hasWriteZeroes = false
  var serial: (UInt64, UInt64, UInt32)
}

/// Reads a request's header, finds its status byte and data, and checks everything (virtio 1.3 §5.2.6).
///
/// Framing is the driver's choice (§2.7.4.1): header and data may share descriptors or be split at any byte. On return
/// of `.submit` the slot's request holds operation, range and iovecs.
@inline(__always)
func parseVirtioBlkRequest(
  _ chain: DescriptorChain, iovecs: UnsafeMutablePointer<iovec>, context: borrowing VirtioBlkContext,
  request: UnsafeMutablePointer<BlockRequest>, slot: UnsafeMutablePointer<SlotState>, segments: SegmentTable
) throws(QueueFault) -> VirtioBlkAction {
  guard chain.readableBytes >= UInt64(Limit.headerBytes), chain.writableBytes >= 1 else { throw .noHeaderOrStatus }
  let last = iovecs + (chain.count - 1)
  last.pointee.iov_len -= 1
  slot.pointee.status = last.pointee.iov_base + last.pointee.iov_len
  let written: UInt32 = chain.writableBytes == 1 ? 1 : 0
  slot.pointee.writtenOnSuccess = written
  slot.pointee.writtenOnFailure = written

  // An emptied status iovec is left in the list: the kernel takes an empty entry, but skipping it is cheaper.
  let writableEnd = last.pointee.iov_len == 0 ? chain.count - 1 : chain.count
  var readableStart = 0
  let header = takeHeader(iovecs, start: &readableStart)

  switch header.type {
  case RequestType.read:
    request.pointee.operation = .read
    request.pointee.iovecs = iovecs + chain.readableCount
    request.pointee.iovecCount = Int32(writableEnd - chain.readableCount)
    slot.pointee.writtenOnSuccess = UInt32(chain.writableBytes)
    return checkRange(header.sector, byteCount: chain.writableBytes - 1, written, context, request)
  case RequestType.write:
    if context.isReadOnly { return .answer(status: RequestStatus.ioError, written: written) }
    request.pointee.operation = .write
    request.pointee.iovecs = iovecs + readableStart
    request.pointee.iovecCount = Int32(chain.readableCount - readableStart)
    return checkRange(
      header.sector, byteCount: chain.readableBytes - UInt64(Limit.headerBytes), written, context, request)
  case RequestType.flush:
    request.pointee.operation = .flush
    request.pointee.byteCount = 0
    request.pointee.iovecCount = 0
    return .submit
  case RequestType.discard, RequestType.writeZeroes:
    return parseRangeRequest(
      header.type == RequestType.discard ? .discard : .writeZeroes, data: iovecs + readableStart,
      iovecCount: chain.readableCount - readableStart, byteCount: chain.readableBytes - UInt64(Limit.headerBytes),
      context: context, request: request, slot: slot, segments: segments)
  case RequestType.getID:
    let copied = copySerial(
      context.serial, to: iovecs + chain.readableCount, count: writableEnd - chain.readableCount)
    // The status byte follows them where the buffer has no room for more.
    return .answer(
      status: RequestStatus.ok, written: UInt64(copied) == chain.writableBytes - 1 ? copied + 1 : copied)
  default:
    return .answer(status: RequestStatus.unsupported, written: written)
  }
}

/// Checks a data request's range against the disk (virtio 1.3 §5.2.6.1): whole sectors, no wrap, inside the capacity.
@inline(__always)
private func checkRange(
  _ sector: UInt64, byteCount: UInt64, _ written: UInt32, _ context: borrowing VirtioBlkContext,
  _ request: UnsafeMutablePointer<BlockRequest>
) -> VirtioBlkAction {
  let sectors = byteCount / Limit.sectorBytes
  guard byteCount % Limit.sectorBytes == 0, sector <= context.capacitySectors,
    sectors <= context.capacitySectors - sector
  else { return .answer(status: RequestStatus.ioError, written: written) }
  if byteCount == 0 { return .answer(status: RequestStatus.ok, written: written) }
  request.pointee.offset = sector * Limit.sectorBytes
  request.pointee.byteCount = byteCount
  return .submit
}

/// Copies the 16-byte header out of the readable buffers, once, and steps over it.
@inline(__always)
private func takeHeader(
  _ iovecs: UnsafeMutablePointer<iovec>, start: inout Int
) -> (type: UInt32, sector: UInt64) {
  if iovecs[0].iov_len >= Limit.headerBytes {
    let base = iovecs[0].iov_base!
    let header = (base.loadUnaligned(as: UInt32.self), (base + 8).loadUnaligned(as: UInt64.self))
    if iovecs[0].iov_len == Limit.headerBytes {
      start = 1
    } else {
      iovecs[0].iov_base = base + Limit.headerBytes
      iovecs[0].iov_len -= Limit.headerBytes
    }
    return header
  }
  return takeSplitHeader(iovecs, start: &start)
}

@inline(never)
private func takeSplitHeader(
  _ iovecs: UnsafeMutablePointer<iovec>, start: inout Int
) -> (type: UInt32, sector: UInt64) {
  var bytes: (UInt64, UInt64) = (0, 0)
  withUnsafeMutableBytes(of: &bytes) { header in
    var copied = 0
    while copied < Limit.headerBytes {
      let piece = min(Limit.headerBytes - copied, iovecs[start].iov_len)
      memcpy(header.baseAddress! + copied, iovecs[start].iov_base, piece)
      copied += piece
      iovecs[start].iov_base += piece
      iovecs[start].iov_len -= piece
      if iovecs[start].iov_len == 0 { start += 1 }
    }
  }
  return (UInt32(truncatingIfNeeded: bytes.0), bytes.1)
}

/// Copies at most 20 bytes of the serial number into the writable buffers, zero-padded (virtio 1.3 §5.2.6).
/// - Returns: bytes written.
@inline(never)
private func copySerial(
  _ serial: (UInt64, UInt64, UInt32), to iovecs: UnsafeMutablePointer<iovec>, count: Int
) -> UInt32 {
  var serial = serial
  return withUnsafeBytes(of: &serial) { bytes in
    var copied = 0
    for index in 0..<count {
      let piece = min(Limit.serialBytes - copied, iovecs[index].iov_len)
      memcpy(iovecs[index].iov_base, bytes.baseAddress! + copied, piece)
      copied += piece
    }
    return UInt32(copied)
  }
}

/// One table from the host's error to the status byte.
func requestStatus(forResult result: Int32) -> UInt8 {
  switch result {
  case 0: RequestStatus.ok
  case -EOPNOTSUPP, -ENOSYS: RequestStatus.unsupported
  default: RequestStatus.ioError
  }
}
