// SPDX-License-Identifier: Apache-2.0
import CLinux
import EventLoop
import Glibc
import HostSystem

/// A connected client's bytes, in and out, on a loop.
///
/// Nothing blocks: what the client does not take is kept and written when it does. Whoever uses the channel looks at
/// `outputCount` and says by `wantsInput` whether it can take more; so a client that asks without reading is not heard
/// any more until it reads. Loop thread, machine lock held.
final class MonitorChannel {
  /// Bytes read at a time.
  private static let inputBytesMax = 64 << 10

  /// Takes what has arrived.
  var onInput: (([UInt8]) -> Void)?
  /// Room was made: everything that had waited for the client is written.
  var onDrained: (() -> Void)?
  /// The client is gone. Called once.
  var onClosed: (() -> Void)?
  /// Whether input is read.
  var wantsInput = false {
    didSet { if wantsInput != oldValue { updateInput() } }
  }
  /// Bytes that wait for the client to read.
  var outputCount: Int { output.count }

  private let loop: EventLoop
  private let input: OwnedDescriptor
  private let outputDescriptor: OwnedDescriptor
  private var reader: ChannelHandler!
  private var writer: ChannelHandler!
  private var isReading = false
  private var isWriting = false
  private(set) var isClosed = false
  // Nobody reads any more.
  private var isBroken = false
  private var output: ArraySlice<UInt8> = []
  // The output's flags before it was made non-blocking, where they are someone else's too.
  private var flagsBefore: Int32?

  /// Serves the other end of a socket.
  convenience init(socket: consuming OwnedDescriptor, loop: EventLoop) throws(SystemError) {
    // The loop watches a descriptor once, for one purpose.
    let second = try StreamSocket.duplicate(socket.number)
    self.init(input: socket, output: second, loop: loop)
  }

  /// Serves standard input and output.
  static func standardIO(loop: EventLoop) throws(SystemError) -> MonitorChannel {
    let channel = MonitorChannel(
      input: try StreamSocket.duplicate(STDIN_FILENO), output: try StreamSocket.duplicate(STDOUT_FILENO), loop: loop)
    let flags = clinux_fcntl(STDOUT_FILENO, F_GETFL, 0)
    // A terminal or pipe that is full must not hold the machine.
    if flags >= 0, flags & O_NONBLOCK == 0, clinux_fcntl(STDOUT_FILENO, F_SETFL, Int(flags | O_NONBLOCK)) >= 0 {
      channel.flagsBefore = flags
    }
    return channel
  }

  private init(input: consuming OwnedDescriptor, output: consuming OwnedDescriptor, loop: EventLoop) {
    self.loop = loop
    self.input = input
    outputDescriptor = output
    reader = ChannelHandler(descriptor: self.input.number, events: Int16(POLLIN)) { [weak self] in self?.readable() }
    writer = ChannelHandler(descriptor: outputDescriptor.number, events: Int16(POLLOUT)) { [weak self] in
      self?.flush()
    }
  }

  /// Ends the connection; what the client has not read is lost. Nothing is called any more.
  func close() {
    guard !isClosed else { return }
    isClosed = true
    setReading(false)
    setWriting(false)
    if let flagsBefore { _ = clinux_fcntl(outputDescriptor.number, F_SETFL, Int(flagsBefore)) }
    // Duplicates, here or in another process, would keep the connection.
    _ = shutdown(input.number, Int32(SHUT_RDWR))
    onInput = nil
    onDrained = nil
    onClosed = nil
  }

  // MARK: Input

  private func updateInput() { setReading(wantsInput && !isClosed) }

  private func setReading(_ reads: Bool) {
    guard reads != isReading else { return }
    isReading = reads
    if reads { loop.add(reader) } else { loop.remove(reader) }
  }

  private func setWriting(_ writes: Bool) {
    guard writes != isWriting else { return }
    isWriting = writes
    if writes { loop.add(writer) } else { loop.remove(writer) }
  }

  private func readable() {
    var buffer = [UInt8](repeating: 0, count: Self.inputBytesMax)
    let count = clinux_read(input.number, &buffer, buffer.count)
    if count == -Int(EAGAIN) || count == -Int(EINTR) { return }
    guard count > 0 else { return gone() }
    buffer.removeLast(buffer.count - count)
    onInput?(buffer)
  }

  private func gone() {
    let tell = onClosed
    close()
    tell?()
  }

  // MARK: Output

  /// Writes what the client takes at once, and keeps the rest. Calls nothing: that a client is gone shows later.
  func write(_ bytes: [UInt8]) {
    guard !isClosed, !isBroken else { return }
    output += bytes
    if isWriting { return }
    if !writeOut() {
      // The reader finds the end, too, and tells.
      isBroken = true
      output = []
    }
    setWriting(!output.isEmpty)
  }

  private func flush() {
    guard writeOut() else { return gone() }
    guard output.isEmpty else { return }
    setWriting(false)
    onDrained?()
  }

  /// - Returns: false where the client is gone.
  private func writeOut() -> Bool {
    while !output.isEmpty {
      let count = output.withUnsafeBytes { clinux_send(outputDescriptor.number, $0.baseAddress, $0.count) }
      if count == -Int(EINTR) { continue }
      if count == -Int(EAGAIN) { break }
      if count <= 0 { return false }
      output = output.dropFirst(count)
    }
    // The written part is let go of.
    if output.isEmpty {
      output = []
    } else if output.startIndex > Self.inputBytesMax {
      output = ArraySlice(Array(output))
    }
    return true
  }

  /// Waits at most `milliseconds` for the client to take what is left, at the machine's end.
  func finish(milliseconds: Int32) {
    while !isClosed, !output.isEmpty {
      var descriptor = pollfd(fd: outputDescriptor.number, events: Int16(POLLOUT), revents: 0)
      var limit = timespec(tv_sec: Int(milliseconds / 1000), tv_nsec: Int(milliseconds % 1000) * 1_000_000)
      let ready = clinux_ppoll(&descriptor, 1, &limit, nil)
      if ready == -EINTR { continue }
      guard ready > 0, writeOut() else { return }
    }
  }
}

/// Calls its owner; see `DescriptorHandler`.
private final class ChannelHandler: DescriptorHandler, @unchecked Sendable {
  private let body: () -> Void

  init(descriptor: Int32, events: Int16, _ body: @escaping () -> Void) {
    self.body = body
    super.init(descriptor: descriptor, events: events)
  }

  override func ready() { body() }
}
