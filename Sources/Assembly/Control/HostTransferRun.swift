// SPDX-License-Identifier: Apache-2.0
import Block
import EventLoop
import Glibc
import HostSystem

/// A backend on its way to the loop that it belongs to.
struct DistantBackend: @unchecked Sendable {
  // Used on its own loop only.
  let backend: BlockBackend
}

/// Puts together counts that come from several loops. Main loop's thread.
final class StatisticsCollector: @unchecked Sendable {
  private let drives: [(name: String, id: String)]
  private var counts: [BlockStatistics?]
  private var answer: (([DriveStatistics]) -> Void)?

  init(drives: [AttachedDrive], answer: @escaping ([DriveStatistics]) -> Void) {
    self.drives = drives.map { ($0.name, $0.deviceID) }
    self.answer = answer
    counts = Array(repeating: nil, count: drives.count)
  }

  func take(_ index: Int, _ counts: BlockStatistics) {
    self.counts[index] = counts
    finishIfComplete()
  }

  func finishIfComplete() {
    guard let answer, counts.allSatisfy({ $0 != nil }) else { return }
    self.answer = nil
    answer(
      zip(drives, counts).map { drive, counts in
        DriveStatistics(name: drive.name, deviceID: drive.id, counts: counts ?? BlockStatistics())
      })
  }
}

/// One transfer beside the guest: submitted on the backend's loop, answered on the main loop.
///
/// It keeps itself while the request is lent.
final class HostTransferRun: BlockClient, @unchecked Sendable {
  private static let alignment = 4096

  private let transfer: HostTransfer
  private let distant: DistantBackend
  private let mainLoop: EventLoop
  // Main loop's thread only.
  private var done: ((Result<[UInt8], ControlError>) -> Void)?
  private let slot = UnsafeMutablePointer<BlockRequest>.allocate(capacity: 1)
  private let list = UnsafeMutablePointer<iovec>.allocate(capacity: 1)
  private let buffer: UnsafeMutableRawBufferPointer
  private var itself: HostTransferRun?

  init(
    _ transfer: HostTransfer, backend: BlockBackend, mainLoop: EventLoop,
    done: @escaping (Result<[UInt8], ControlError>) -> Void
  ) {
    self.transfer = transfer
    self.mainLoop = mainLoop
    self.done = done
    distant = DistantBackend(backend: backend)
    let needsBytes = transfer.operation == .read || transfer.operation == .write
    buffer = .allocate(
      byteCount: needsBytes ? Int(min(transfer.byteCount, HostTransfer.byteCountMax)) : 0, alignment: Self.alignment)
    // Only writes send what is in it, but a read that fails in the middle must not show what was there before.
    buffer.initializeMemory(as: UInt8.self, repeating: transfer.operation == .write ? transfer.pattern : 0)
    slot.initialize(to: BlockRequest())
    list.initialize(to: iovec(iov_base: buffer.baseAddress, iov_len: buffer.count))
  }

  deinit {
    slot.deallocate()
    list.deallocate()
    buffer.deallocate()
  }

  /// Main loop's thread.
  func start() {
    if let refusal { return answer(.failure(ControlError(refusal))) }
    slot.pointee.operation = transfer.operation
    slot.pointee.offset = transfer.offset
    slot.pointee.byteCount = transfer.operation == .flush ? 0 : transfer.byteCount
    slot.pointee.iovecs = list
    slot.pointee.iovecCount = buffer.isEmpty ? 0 : 1
    slot.pointee.forceUnitAccess = transfer.isDurable
    slot.pointee.mayUnmap = transfer.mayUnmap
    slot.pointee.client = Unmanaged.passUnretained(self)
    itself = self
    let backend = distant.backend
    if backend.loop === mainLoop { backend.submit(slot) } else { backend.loop.execute { self.submit() } }
  }

  private func submit() { distant.backend.submit(slot) }

  /// Why it is not even tried.
  private var refusal: String? {
    if transfer.operation == .flush { return nil }
    if transfer.offset % BlockBackend.sectorBytes != 0 || transfer.byteCount % BlockBackend.sectorBytes != 0 {
      return "offset \(transfer.offset) and length \(transfer.byteCount) must be multiples of 512"
    }
    if transfer.byteCount == 0 { return "length 0 moves nothing" }
    if !buffer.isEmpty, transfer.byteCount > HostTransfer.byteCountMax {
      return "length \(transfer.byteCount) is more than \(HostTransfer.byteCountMax), the most at a time"
    }
    return nil
  }

  override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
    let result = request.pointee.result
    mainLoop.execute { self.finish(result) }
  }

  private func finish(_ result: Int32) {
    itself = nil
    guard result == 0 else { return answer(.failure(ControlError(SystemError.text(of: -result)))) }
    answer(.success(transfer.operation == .read ? Array(buffer) : []))
  }

  private func answer(_ result: Result<[UInt8], ControlError>) {
    let done = done
    self.done = nil
    done?(result)
  }
}
