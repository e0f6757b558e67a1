// SPDX-License-Identifier: Apache-2.0
import Block
import Glibc
import GuestMemory

/// Data between the guest's region list and the disk or the device.
extension AHCIPort {
  /// Begins to move data between the disk and the guest.
  func beginTransfer(
    _ operation: BlockOperation, of backend: BlockBackend, offset: UInt64, byteCount: UInt64, durable: Bool,
    for slot: UnsafeMutablePointer<CommandSlot>
  ) {
    let request = slot.pointee.request
    request.pointee.operation = operation
    request.pointee.offset = offset
    request.pointee.byteCount = byteCount
    request.pointee.forceUnitAccess = durable
    request.pointee.iovecs = slot.pointee.iovecs
    slot.pointee.isMoving = true
    var list = slot.pointee.list
    let gathered = list.gather(
      byteCount, memory: memory, into: slot.pointee.iovecs, capacity: Limit.iovecsPerSlot)
    switch gathered {
    case .whole(let count):
      slot.pointee.list = list
      request.pointee.iovecCount = Int32(count)
      lend(slot, to: backend)
    case .partial: transferInPieces(backend, offset, byteCount, slot)
    case .fault:
      slot.pointee.faulted = true
      end(slot)
    }
  }

  /// Hands the slot's request to the block layer.
  @inline(__always)
  func lend(_ slot: UnsafeMutablePointer<CommandSlot>, to backend: BlockBackend) {
    slot.pointee.isLent = true
    lentCount += 1
    backend.submit(slot.pointee.request)
  }

  /// The block layer has finished a request.
  func returned(_ request: UnsafeMutablePointer<BlockRequest>) {
    let slot = slots + Int(request.pointee.slot)
    slot.pointee.isLent = false
    lentCount -= 1
    if slot.pointee.isAbandoned {
      slot.pointee.isAbandoned = false
      slot.pointee.freeBuffers()
    } else if slot.pointee.bounce != nil {
      pieceCompleted(slot, request)
    } else {
      if slot.pointee.isMoving && request.pointee.result == 0 { slot.pointee.movedBytes += request.pointee.byteCount }
      let result = request.pointee.result
      deviceReference.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.transferEnded(slot, result: result) }
    }
    if lentCount == 0 && !afterDrain.isEmpty { drained() }
  }

  // MARK: Lists that a disk cannot take as they are

  /// The list is too short, or has too many pieces for one request: the data go through a buffer, piece by piece.
  @inline(never)
  private func transferInPieces(
    _ backend: BlockBackend, _ offset: UInt64, _ byteCount: UInt64, _ slot: UnsafeMutablePointer<CommandSlot>
  ) {
    var left = byteCount
    var list = slot.pointee.list
    while left > 0, let piece = list.next(upTo: left) { left -= piece.byteCount }
    // A write that would run out of data does not begin (§6.1.5 leaves the disk's content open); a read moves what fits.
    if left == byteCount || (left > 0 && slot.pointee.request.pointee.operation == .write) {
      slot.pointee.overflowed = true
      slot.pointee.fail(ATAError.abort)
      return end(slot)
    }
    slot.pointee.transferOffset = offset
    slot.pointee.transferLeft = byteCount
    slot.pointee.bounce = aligned_alloc(Limit.bounceAlignment, Int(Limit.bounceBytes))!
    movePiece(slot, backend)
  }

  private func movePiece(_ slot: UnsafeMutablePointer<CommandSlot>, _ backend: BlockBackend) {
    guard let bounce = slot.pointee.bounce else { return }
    let bytes = min(slot.pointee.transferLeft, Limit.bounceBytes)
    let request = slot.pointee.request
    if request.pointee.operation == .write {
      let taken = receive(into: UnsafeMutableRawBufferPointer(start: bounce, count: Int(bytes)), for: slot)
      if taken < Int(bytes) {
        slot.pointee.fail(ATAError.abort)
        return end(slot)
      }
    }
    slot.pointee.iovecs[0] = iovec(iov_base: bounce, iov_len: Int(bytes))
    request.pointee.iovecCount = 1
    request.pointee.offset = slot.pointee.transferOffset
    request.pointee.byteCount = bytes
    slot.pointee.pieceBackend = Unmanaged.passUnretained(backend)
    lend(slot, to: backend)
  }

  private func pieceCompleted(
    _ slot: UnsafeMutablePointer<CommandSlot>, _ request: UnsafeMutablePointer<BlockRequest>
  ) {
    let bytes = request.pointee.byteCount
    var isOver = request.pointee.result != 0
    if !isOver && request.pointee.operation == .read, let bounce = slot.pointee.bounce {
      let sent = send(UnsafeRawBufferPointer(start: bounce, count: Int(bytes)), for: slot)
      if slot.pointee.faulted { return end(slot) }
      isOver = sent < Int(bytes)
    }
    slot.pointee.transferOffset += bytes
    slot.pointee.transferLeft -= bytes
    if !isOver && slot.pointee.transferLeft > 0, let backend = slot.pointee.pieceBackend {
      return backend._withUnsafeGuaranteedRef { movePiece(slot, $0) }
    }
    free(slot.pointee.bounce)
    slot.pointee.bounce = nil
    device.unsafelyUnwrapped.transferEnded(slot, result: request.pointee.result)
  }

  // MARK: Data of the device itself

  /// Walks the list for `byteCount` bytes. What was moved counts, also where the list ends or leaves RAM.
  @inline(__always)
  func copy(
    _ byteCount: Int, _ slot: UnsafeMutablePointer<CommandSlot>, _ move: (UnsafeMutableRawPointer, Int, Int) -> Void
  ) -> Int {
    var done = 0
    while done < byteCount {
      guard let (address, bytes) = slot.pointee.list.next(upTo: UInt64(byteCount - done)) else {
        slot.pointee.overflowed = true
        break
      }
      guard let guest = memory.pointer(at: address, byteCount: bytes) else {
        slot.pointee.faulted = true
        break
      }
      move(guest, done, Int(bytes))
      done += Int(bytes)
    }
    slot.pointee.movedBytes += UInt64(done)
    return done
  }
}
