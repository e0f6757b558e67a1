// SPDX-License-Identifier: Apache-2.0
// A script plays the kernel: it sees every submission queue entry and decides what completes, when, and with what result.
import CURing
import EventLoop
import Glibc

@testable import AsyncIO

final class ScriptedKernel: RingPort {
  struct Entry {
    var opcode: UInt8
    var offset: UInt64
    var userData: UInt64
    var flags: Int32
    var byteCount: Int
    var first: UnsafeMutableRawPointer?
  }

  private let entries: UnsafeMutablePointer<io_uring_sqe>
  private let capacity: Int
  private var filled = 0
  private var taken = 0
  /// Entries that the kernel has and has not completed, oldest first.
  var inKernel: [Entry] = []
  private var completions: [RingCompletion] = []
  /// Answers of the next submissions; after the last one everything is taken.
  var submitAnswers: [Int32] = []
  /// How many entries each submission handed over.
  var submissions: [Int] = []
  /// Completes each entry as soon as it is submitted, with this result.
  var completeAtOnce: ((Entry) -> Int32)?

  init(capacity: Int = 128) {
    self.capacity = capacity
    entries = .allocate(capacity: capacity)
    super.init()
  }

  deinit { entries.deallocate() }

  override func nextEntry() -> UnsafeMutablePointer<io_uring_sqe>? {
    if filled - taken == capacity { return nil }
    let entry = entries + filled % capacity
    entry.initialize(to: io_uring_sqe())
    filled += 1
    return entry
  }

  override func submit() -> Int32 {
    let answer = submitAnswers.isEmpty ? Int32(filled - taken) : submitAnswers.removeFirst()
    guard answer >= 0 else { return answer }
    submissions.append(Int(answer))
    for _ in 0..<answer {
      let entry = describe(entries[taken % capacity])
      taken += 1
      if let completeAtOnce {
        completions.append(RingCompletion(userData: entry.userData, result: completeAtOnce(entry)))
      } else {
        inKernel.append(entry)
      }
    }
    return answer
  }

  private func describe(_ entry: io_uring_sqe) -> Entry {
    var byteCount = 0
    var first: UnsafeMutableRawPointer?
    if entry.opcode != UInt8(IORING_OP_FSYNC.rawValue) {
      let iovecs = UnsafePointer<iovec>(bitPattern: UInt(entry.addr))!
      for index in 0..<Int(entry.len) { byteCount += iovecs[index].iov_len }
      first = iovecs[0].iov_base
    }
    return Entry(
      opcode: entry.opcode, offset: entry.off, userData: entry.user_data, flags: Int32(entry.rw_flags),
      byteCount: byteCount, first: first)
  }

  override var hasCompletions: Bool { !completions.isEmpty }
  override func takeCompletion() -> RingCompletion? { completions.isEmpty ? nil : completions.removeFirst() }

  /// Completes the oldest entry in the kernel.
  func complete(_ result: Int32, at index: Int = 0) {
    completions.append(RingCompletion(userData: inKernel.remove(at: index).userData, result: result))
  }
}

/// Keeps what completed.
final class RecordingSink: IOCompletionSink {
  var completed: [(operation: UnsafeMutablePointer<IOOperation>, result: Int32)] = []
  var onCompletion: (UnsafeMutablePointer<IOOperation>) -> Void = { _ in }
  override func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
    completed.append((operation, operation.pointee.result))
    onCompletion(operation)
  }
}

/// An operation with memory of its own.
final class TestOperation {
  let pointer = UnsafeMutablePointer<IOOperation>.allocate(capacity: 1)
  let memory: UnsafeMutableRawPointer
  let iovecs: UnsafeMutablePointer<iovec>
  let byteCount: Int

  init(_ opcode: IOOpcode, offset: UInt64 = 0, pieces: [Int] = [4096], sink: IOCompletionSink, descriptor: Int32 = -1) {
    byteCount = pieces.reduce(0, +)
    memory = .allocate(byteCount: max(byteCount, 1), alignment: 4096)
    memset(memory, 0xaa, byteCount)
    iovecs = .allocate(capacity: max(pieces.count, 1))
    var position = 0
    for (index, piece) in pieces.enumerated() {
      iovecs[index] = iovec(iov_base: memory + position, iov_len: piece)
      position += piece
    }
    pointer.initialize(to: IOOperation())
    pointer.pointee.opcode = opcode
    pointer.pointee.offset = offset
    pointer.pointee.descriptor = descriptor
    pointer.pointee.iovecs = iovecs
    pointer.pointee.iovecCount = Int32(pieces.count)
    pointer.pointee.byteCount = byteCount
    pointer.pointee.sink = Unmanaged.passUnretained(sink)
  }

  deinit {
    pointer.deallocate()
    memory.deallocate()
    iovecs.deallocate()
  }

  /// Puts `bytes`, as many as the operation has, into its memory.
  func fill(_ bytes: [UInt8]) { memory.copyMemory(from: bytes, byteCount: byteCount) }

  var bytes: [UInt8] { Array(UnsafeRawBufferPointer(start: memory, count: byteCount)) }
}
