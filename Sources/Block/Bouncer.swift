// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import Glibc

/// Serves requests that direct I/O cannot take as they are, through aligned buffers.
///
/// Reads, and writes whose range is aligned, only need their data in a better place. A write of a part of a block needs
/// the block read first, changed and written back whole. Nothing else may run meanwhile, or the write-back would undo
/// what was written beside it: such a write waits until everything before it is done, and everything after it waits for
/// it. Loop thread only; allocates, which is why guests do well to keep to the block size that the disk tells them.
final class Bouncer {
  private let descriptor: Int32
  private let alignment: IOAlignment
  private let fileBytes: UInt64
  private let engine: IOUringEngine
  private let finished: (UnsafeMutablePointer<BlockRequest>, Int32) -> Void
  private var waiting: [(request: UnsafeMutablePointer<BlockRequest>, isAligned: Bool)] = []
  private var active: [BouncedRequest] = []
  private var isExclusive = false
  private var directInFlight = 0

  init(
    descriptor: Int32, alignment: IOAlignment, byteCount: UInt64, engine: IOUringEngine,
    finished: @escaping (UnsafeMutablePointer<BlockRequest>, Int32) -> Void
  ) {
    self.descriptor = descriptor
    self.alignment = alignment
    fileBytes = byteCount
    self.engine = engine
    self.finished = finished
  }

  /// Whether requests have to queue up here even if they are aligned.
  var isBusy: Bool { isExclusive || !waiting.isEmpty }

  /// Takes a request. `directInFlight` counts those that the engine has without us.
  func submit(_ request: UnsafeMutablePointer<BlockRequest>, isAligned: Bool, directInFlight: Int) {
    self.directInFlight = directInFlight
    waiting.append((request, isAligned))
    pump()
  }

  /// The last of the requests that the engine had without us is done.
  func directBecameIdle() {
    directInFlight = 0
    pump()
  }

  private func pump() {
    while let next = waiting.first, !isExclusive {
      let bounced = BouncedRequest(next.request, descriptor: descriptor, alignment: alignment, fileBytes: fileBytes)
      if bounced.changesPartOfBlock {
        guard active.isEmpty && directInFlight == 0 else { return }
        isExclusive = true
      }
      waiting.removeFirst()
      active.append(bounced)
      bounced.start(engine) { [unowned self] result in done(bounced, result) }
    }
  }

  private func done(_ bounced: BouncedRequest, _ result: Int32) {
    active.removeAll { $0 === bounced }
    isExclusive = false
    finished(bounced.request, result)
    pump()
  }
}

/// One request on its detour: an aligned buffer that covers its range, and the operation that is under way.
final class BouncedRequest: IOCompletionSink {
  let request: UnsafeMutablePointer<BlockRequest>
  private let start: UInt64
  private let byteCount: Int
  private let buffer: UnsafeMutableRawPointer
  private let operation: UnsafeMutablePointer<IOOperation>
  private let vector: UnsafeMutablePointer<iovec>
  private let descriptor: Int32
  private var engine: IOUringEngine?
  private var done: ((Int32) -> Void)?

  init(
    _ request: UnsafeMutablePointer<BlockRequest>, descriptor: Int32, alignment: IOAlignment, fileBytes: UInt64
  ) {
    self.request = request
    self.descriptor = descriptor
    let unit = UInt64(alignment.offset)
    start = request.pointee.offset / unit * unit
    let end = (request.pointee.offset + request.pointee.byteCount + unit - 1) / unit * unit
    byteCount = Int(end - start)
    buffer = UnsafeMutableRawPointer.allocate(byteCount: max(byteCount, 1), alignment: max(alignment.memory, 16))
    operation = .allocate(capacity: 1)
    operation.initialize(to: IOOperation())
    vector = .allocate(capacity: 1)
    super.init()
  }

  deinit {
    buffer.deallocate()
    operation.deallocate()
    vector.deallocate()
  }

  /// Whether the block around the request's data must be read before it is written.
  var changesPartOfBlock: Bool {
    request.pointee.operation == .write
      && (start != request.pointee.offset || byteCount != Int(request.pointee.byteCount))
  }

  func start(_ engine: IOUringEngine, done: @escaping (Int32) -> Void) {
    self.engine = engine
    self.done = done
    if request.pointee.operation == .write && !changesPartOfBlock {
      copyFromGuest()
      transfer(.write)
    } else {
      transfer(.read)
    }
  }

  private func transfer(_ opcode: IOOpcode) {
    vector.initialize(to: iovec(iov_base: buffer, iov_len: byteCount))
    operation.pointee.opcode = opcode
    operation.pointee.forceUnitAccess = opcode == .write && request.pointee.forceUnitAccess
    operation.pointee.descriptor = descriptor
    operation.pointee.offset = start
    operation.pointee.iovecs = vector
    operation.pointee.iovecCount = 1
    operation.pointee.byteCount = byteCount
    operation.pointee.sink = Unmanaged.passUnretained(self)
    engine?.submit(operation)
  }

  override func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
    let result = operation.pointee.result
    if result == 0 && operation.pointee.opcode == .read {
      if request.pointee.operation == .read {
        copyToGuest()
      } else {
        copyFromGuest()
        transfer(.write)
        return
      }
    }
    done?(result)
  }

  private var dataInBuffer: UnsafeMutableRawPointer { buffer + Int(request.pointee.offset - start) }

  private func copyToGuest() {
    var position = dataInBuffer
    eachIovec {
      memcpy($0.iov_base, position, $0.iov_len)
      position += $0.iov_len
    }
  }

  private func copyFromGuest() {
    var position = dataInBuffer
    eachIovec {
      memcpy(position, $0.iov_base, $0.iov_len)
      position += $0.iov_len
    }
  }

  private func eachIovec(_ body: (iovec) -> Void) {
    guard let iovecs = request.pointee.iovecs else { return }
    for index in 0..<Int(request.pointee.iovecCount) { body(iovecs[index]) }
  }
}
