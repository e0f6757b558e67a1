// SPDX-License-Identifier: Apache-2.0
// A script plays the kernel's side of a Linux AIO context: it sees every control block and decides what completes, when,
// and with what result.
import CLinuxAIO
import EventLoop
import Glibc
import HostSystem

@testable import AsyncIO

final class ScriptedAIO: LinuxAIOPort {
  /// What a control block said when it was submitted.
  struct Entry {
    var block: UnsafeMutablePointer<iocb>
    var content: iocb
    var opcode: Int { Int(content.aio_lio_opcode) }
    var offset: UInt64 { UInt64(bitPattern: content.aio_offset) }
    var iovecs: UnsafeMutablePointer<iovec>? { UnsafeMutablePointer(bitPattern: UInt(content.aio_buf)) }
    var byteCount: Int { (0..<Int(content.aio_nbytes)).reduce(0) { $0 + (iovecs?[$1].iov_len ?? 0) } }
  }

  /// Operations that the kernel has and has not completed, oldest first.
  var inKernel: [Entry] = []
  /// Answers of the next submissions; after the last one everything is taken.
  var submitAnswers: [Int32] = []
  /// How many blocks each submission offered.
  var offered: [Int] = []
  /// How many blocks the kernel took, for each submission of which it took some.
  var taken: [Int] = []
  /// Completes each operation as soon as it is submitted, with this result.
  var completeAtOnce: ((Entry) -> Int64)?
  var cancelAnswer: Int32 = -EINVAL
  var cancelCount = 0
  /// Whether completions signal the eventfd, as the kernel's do.
  var signals = true
  var canBePolled = true
  var lookCount = 0
  var isClosed = false
  private let event: EventDescriptor
  private var events: [io_event] = []

  override init() {
    do { event = try EventDescriptor() } catch { fatalError("\(error)") }
    super.init()
  }

  override var descriptor: Int32 { event.number }
  override func acknowledge() { event.consume() }
  override var isPollable: Bool { canBePolled }
  override var hasEvents: Bool {
    lookCount += 1
    return !events.isEmpty
  }
  override func takeEvent() -> io_event? { events.isEmpty ? nil : events.removeFirst() }
  override func close() { isClosed = true }

  /// Makes the eventfd readable.
  func signal() { event.signal() }

  override func submit(_ blocks: UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>, count: Int) -> Int32 {
    offered.append(count)
    let answer = submitAnswers.isEmpty ? Int32(count) : submitAnswers.removeFirst()
    guard answer > 0 else { return answer }
    taken.append(Int(answer))
    for index in 0..<Int(answer) {
      guard let block = blocks[index] else { fatalError("a gap in the submission") }
      inKernel.append(Entry(block: block, content: block.pointee))
    }
    if let completeAtOnce { while !inKernel.isEmpty { complete(completeAtOnce(inKernel[0])) } }
    return answer
  }

  override func cancel(_ block: UnsafeMutablePointer<iocb>) -> Int32 {
    cancelCount += 1
    if cancelAnswer == 0 || cancelAnswer == -EINPROGRESS, let index = inKernel.firstIndex(where: { $0.block == block })
    {
      complete(Int64(-ECANCELED), at: index)
    }
    return cancelAnswer
  }

  /// Completes an operation in the kernel, the oldest where nothing else is said.
  func complete(_ result: Int64, _ result2: Int64 = 0, at index: Int = 0) {
    let entry = inKernel.remove(at: index)
    let object = UInt64(UInt(bitPattern: entry.block))
    events.append(io_event(data: entry.content.aio_data, obj: object, res: result, res2: result2))
    if signals { event.signal() }
  }
}
