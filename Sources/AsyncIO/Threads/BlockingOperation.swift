// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

extension UnsafeMutablePointer<IOOperation> {
  /// How often in a row the kernel may answer EAGAIN before that is the result: it passes on some SCSI disks, but a thread
  /// that asks for ever serves nobody.
  static var refusalsInARowMax: Int { 100 }

  /// Does the whole operation by calls that block, and sets its `result`. Any thread that owns the operation.
  func perform(through port: FilePort) {
    guard pointee.opcode == .write && pointee.forceUnitAccess else { return repeatUntilFinished { call(port) } }
    var isFlagRefused = false
    repeatUntilFinished {
      if !isFlagRefused {
        let answer = write(port, flags: clinux_RWF_DSYNC)
        // Linux before 4.7 and some file systems do not know the flag.
        isFlagRefused = Self.meansUnsupported(answer)
        if !isFlagRefused { return answer }
      }
      return write(port, flags: 0)
    }
    // The whole write, and what an earlier part of it may have left in a cache.
    if isFlagRefused && pointee.result == 0 { makeDurable(port) }
  }

  /// Asks again until the one policy for answers is satisfied.
  @inline(__always)
  private func repeatUntilFinished(_ ask: () -> Int) {
    var refusals = 0
    while true {
      let answer = ask()
      if answer == -Int(EAGAIN) {
        refusals += 1
        if refusals > Self.refusalsInARowMax {
          pointee.result = -EAGAIN
          return
        }
      } else if answer != -Int(EINTR) {
        refusals = 0
      }
      if take(answer) == .finished { return }
    }
  }

  /// One call for what is left of an operation.
  @inline(__always)
  private func call(_ port: FilePort) -> Int {
    switch pointee.opcode {
    case .read: port.read(pointee.descriptor, pointee.iovecs, pointee.iovecCount, at: position)
    case .write: write(port, flags: 0)
    case .flush: port.syncData(pointee.descriptor)
    case .discard, .writeZeroes: changeRange(port)
    }
  }

  private func write(_ port: FilePort, flags: Int32) -> Int {
    port.write(pointee.descriptor, pointee.iovecs, pointee.iovecCount, at: position, flags: flags)
  }

  /// Where the next call begins. No offset becomes -1, which preadv2 takes for the descriptor's own position.
  private var position: off_t { off_t(clamping: pointee.offset &+ UInt64(pointee.transferred)) }

  private func makeDurable(_ port: FilePort) {
    var answer: Int
    repeat { answer = port.syncData(pointee.descriptor) } while answer == -Int(EINTR)
    pointee.result = Int32(clamping: Swift.min(answer, 0))
  }

  /// fallocate, and where a block device does not know the mode, the ioctl that is older.
  private func changeRange(_ port: FilePort) -> Int {
    let descriptor = pointee.descriptor
    let offset = off_t(clamping: pointee.offset)
    let byteCount = off_t(pointee.byteCount)
    let answer = port.allocate(descriptor, mode: pointee.fallocateMode, offset: offset, byteCount: byteCount)
    // ENODEV is what block devices say before Linux 4.9.
    guard Self.meansUnsupported(answer) || answer == -Int(ENODEV) else { return answer }
    let request = pointee.opcode == .discard ? clinux_BLKDISCARD : clinux_BLKZEROOUT
    let older = port.deviceRange(descriptor, request: UInt(request), offset: offset, byteCount: byteCount)
    // Not a block device: the first answer is the one that means something.
    return older == -Int(ENOTTY) ? answer : older
  }

  private static func meansUnsupported(_ answer: Int) -> Bool {
    answer == -Int(EOPNOTSUPP) || answer == -Int(ENOSYS)
  }
}
