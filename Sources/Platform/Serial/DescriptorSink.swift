// SPDX-License-Identifier: Apache-2.0
import CLinux
import EventLoop
import Glibc
import HostSystem

/// A serial port's other end on file descriptors: standard output, a file, a terminal.
///
/// The process ignores SIGPIPE, so that a reader that goes away shows as an error here.
public final class DescriptorSink: SerialSink {
  /// A descriptor that takes nothing for so long (a pipe whose reader is stuck) loses the bytes: the machine goes on.
  public static let stallMsMax: Int32 = 1000
  /// Input is read in pieces of at most so many bytes.
  public static let inputBytesMax = 256

  private let output: Int32
  private let owned: OwnedDescriptor?
  /// Bytes that could not be written. Machine lock held.
  public private(set) var lostBytes: UInt64 = 0
  /// The first error of a write. Machine lock held.
  public private(set) var failure: SystemError?

  // Input: the loop that watches the descriptor, and what was read but not yet taken by the port.
  private weak var loop: EventLoop?
  private var input: Int32 = -1
  private var isWatching = false
  private var backlog: [UInt8] = []

  /// Writes to a descriptor that someone else owns and keeps open, such as standard output (1).
  public init(borrowing output: Int32) {
    self.output = output
    owned = nil
    super.init()
  }

  /// Writes to a descriptor that it owns from now on.
  public init(taking descriptor: consuming OwnedDescriptor) {
    output = descriptor.number
    owned = consume descriptor
    super.init()
  }

  /// Creates or empties the file at `path` and writes to it.
  /// - Throws: what open(2) said.
  public convenience init(path: String) throws(SystemError) {
    self.init(taking: try OwnedDescriptor.open(path, flags: O_WRONLY | O_CREAT | O_TRUNC))
  }

  public override func write(_ bytes: UnsafeBufferPointer<UInt8>) {
    guard var next = UnsafeRawPointer(bytes.baseAddress) else { return }
    var remaining = bytes.count
    while remaining > 0 {
      let result = clinux_write(output, next, remaining)
      if result > 0 {
        next += result
        remaining -= result
      } else if result == -Int(EAGAIN), waitUntilWritable() {
        continue
      } else if result != -Int(EINTR) {
        lose(remaining, code: result == 0 ? EIO : Int32(-result))
        return
      }
    }
  }

  private func waitUntilWritable() -> Bool {
    var descriptor = pollfd(fd: output, events: Int16(POLLOUT), revents: 0)
    var limit = timespec(tv_sec: Int(DescriptorSink.stallMsMax / 1000), tv_nsec: 0)
    while true {
      let result = clinux_ppoll(&descriptor, 1, &limit, nil)
      if result != -EINTR { return result > 0 }
    }
  }

  private func lose(_ byteCount: Int, code: Int32) {
    lostBytes += UInt64(byteCount)
    if failure == nil { failure = SystemError("write", code: code) }
  }

  // MARK: Input

  /// Hands what arrives at `descriptor` to the port, as fast as the guest reads it. Main thread, with the main loop,
  /// which holds the machine lock while it calls; the descriptor stays open until `close`.
  public func startInput(from descriptor: Int32, loop: EventLoop) {
    input = descriptor
    self.loop = loop
    watch()
  }

  public override func inputWanted() {
    let taken = offer(backlog)
    backlog.removeFirst(taken)
    if backlog.isEmpty { watch() }
  }

  public override func close() {
    unwatch()
    input = -1
    loop = nil
  }

  private func watch() {
    guard !isWatching, input >= 0, let loop else { return }
    isWatching = true
    loop.addReader(input) { [weak self] in self?.inputReady() }
  }

  private func unwatch() {
    guard isWatching else { return }
    isWatching = false
    loop?.removeReader(input)
  }

  private func inputReady() {
    var buffer = [UInt8](repeating: 0, count: DescriptorSink.inputBytesMax)
    let count = clinux_read(input, &buffer, buffer.count)
    if count == -Int(EAGAIN) || count == -Int(EINTR) { return }
    guard count > 0 else {
      // The end of the input, or an error that will not go away.
      unwatch()
      input = -1
      return
    }
    let bytes = Array(buffer[0..<count])
    backlog = Array(bytes[offer(bytes)...])
    // A guest that does not read its port must not make the loop spin: the descriptor is watched again when there is room.
    if !backlog.isEmpty { unwatch() }
  }

  private func offer(_ bytes: [UInt8]) -> Int { bytes.withUnsafeBufferPointer { port?.receive($0) ?? $0.count } }
}
