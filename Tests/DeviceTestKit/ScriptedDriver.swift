// SPDX-License-Identifier: Apache-2.0
// What tests of devices share: a disk that answers when the test says so, and interrupts that are written down.
import Block
import Glibc
import HostSystem
import Machine

/// A disk whose requests complete when the test says so.
open class ScriptedDriver: BlockDriver {
  /// Requests that wait, oldest first.
  public private(set) var held: [UnsafeMutablePointer<BlockRequest>] = []
  /// The disk's content; it differs from sector to sector.
  public var bytes: [UInt8]
  private let servesRanges: Bool

  /// Makes a disk of so many sectors; `servesRanges` is about discard and write-zeroes.
  public init(sectors: Int = 64, servesRanges: Bool = false) {
    self.servesRanges = servesRanges
    bytes = (0..<sectors * 512).map { UInt8(truncatingIfNeeded: $0 / 512 &* 7 &+ $0) }
    super.init()
  }

  public override var byteCount: UInt64 { UInt64(bytes.count) }
  public override var supportsDiscard: Bool { servesRanges }
  public override var supportsWriteZeroes: Bool { servesRanges }
  public override var discardGranularityBytes: Int { 4096 }
  public override func resize(to byteCount: UInt64) throws(SystemError) {
    let kept = bytes.prefix(Int(byteCount))
    bytes = kept + [UInt8](repeating: 0, count: Int(byteCount) - kept.count)
  }
  open override func submit(_ request: UnsafeMutablePointer<BlockRequest>) { held.append(request) }

  /// Completes the request at `index` of those held, moving bytes as a disk would unless `result` is an error.
  public func completeOne(at index: Int = 0, result: Int32 = 0) {
    let request = held.remove(at: index)
    if result == 0 { move(request) }
    request.pointee.result = result
    complete(request)
  }

  /// Completes everything, also what comes meanwhile.
  public func completeAll() { while !held.isEmpty { completeOne() } }

  private func move(_ request: UnsafeMutablePointer<BlockRequest>) {
    guard request.pointee.operation == .read || request.pointee.operation == .write else { return }
    var offset = Int(request.pointee.offset)
    for index in 0..<Int(request.pointee.iovecCount) {
      let piece = request.pointee.iovecs![index]
      bytes.withUnsafeMutableBytes { disk in
        let here = UnsafeMutableRawBufferPointer(rebasing: disk[offset..<offset + piece.iov_len])
        let guest = UnsafeMutableRawBufferPointer(start: piece.iov_base, count: piece.iov_len)
        if request.pointee.operation == .read { guest.copyMemory(from: .init(here)) }
        if request.pointee.operation == .write { here.copyMemory(from: .init(guest)) }
      }
      offset += piece.iov_len
    }
  }
}

/// Interrupts as they arrive.
public final class RecordingInterrupts: InterruptController, @unchecked Sendable {
  /// Every message, oldest first.
  public var messages: [MSIMessage] = []
  /// The level of each line that has changed.
  public var line: [Int: Bool] = [:]
  /// Makes a controller that has seen nothing.
  public override init() { super.init() }
  public override func send(_ message: MSIMessage) { messages.append(message) }
  public override func setLine(_ line: Int, asserted: Bool) { self.line[line] = asserted }
}
