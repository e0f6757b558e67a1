// SPDX-License-Identifier: Apache-2.0
// The qtest accelerator: a machine without processors, whose ports and memory are reached by lines of text from another
// process (QEMU's qtest protocol). QTestCommand and QTestParser are the language, QTestMemory and QTestInterrupts the
// machine's side, QTestChannel the way to the client; the server puts them together.
import EventLoop
import Glibc
import HostSystem
import Machine

/// Serves one qtest client at a time: takes its requests in order, each to its end, on the main loop under the machine lock.
///
/// A request is answered when what it has begun in a register is over: while a device settles (`Device.isSettling`) the
/// answer and all further requests wait, and the loop goes on. Bottom halves and completions are not waited for; clients
/// poll for those.
///
/// Where this process has connected to its client, or was given the connection, the machine ends in order when the client
/// has gone and its last request is answered. (QEMU, 7.2 as measured, runs on without anybody who could reach it, and leaves
/// it to its parent to kill it.) A server that listens waits for the next client then, as QEMU's does.
///
/// It is a device of the machine, so that it lives and ends with it: `machine.add` connects it. The machine's interrupts and
/// clock are the server's from then on; nothing may have armed a timer of the clock before.
public final class QTestServer: Device {
  /// How long the loop looks for the next request before it sleeps: most clients answer sooner, and waking a processor that
  /// has gone to sleep can take longer than the whole round trip.
  static let pollNsMax: UInt64 = 50_000

  /// The machine's interrupt side.
  let interrupts: QTestInterrupts
  private let channel: QTestChannel
  private let log: QTestLog?
  private let loop: EventLoop
  private let readBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: QTestLimit.readBytesMax, alignment: 16)

  // All below: main loop's thread, machine lock held.
  private var listenerHandler: Handler?
  // One for a socket; for two descriptors `inputHandler` reads and `outputHandler` writes.
  private var inputHandler: Handler?
  private var outputHandler: Handler?
  private var lines = QTestLines()
  // What the client has not taken yet begins at `outputHead`.
  private var output: [UInt8] = []
  private var outputHead = 0
  // The answer to a request whose device settles.
  private var heldReply: ArraySlice<UInt8>?
  // Nothing more comes from the client.
  private var sawEnd = false
  // Nothing more can be sent to it.
  private var sendFailed = false
  private var isServing = false

  private final class Handler: DescriptorHandler, @unchecked Sendable {
    private unowned(unsafe) let server: QTestServer
    private let body: (QTestServer) -> Void
    var watched: Int16 = 0

    init(
      _ descriptor: Int32, server: QTestServer, isPollable: Bool = false, _ body: @escaping (QTestServer) -> Void
    ) {
      self.server = server
      self.body = body
      super.init(descriptor: descriptor, isPollable: isPollable)
    }

    override func ready() { body(server) }
    override func poll() -> Bool { server.takeMore() }

    /// Watches for these events from now on, 0 for none.
    func watch(_ events: Int16, on loop: EventLoop) {
      if events == watched { return }
      watched = events
      if events == 0 { loop.remove(self) } else { loop.change(self, events: events) }
    }
  }

  /// Makes a server for `machine`; `machine.add` connects it. Main thread, while the machine is assembled.
  public init(machine: Machine, channel: QTestChannel, log: QTestLog? = nil) {
    self.channel = channel
    self.log = log
    loop = machine.mainLoop
    interrupts = QTestInterrupts(machine: machine)
    super.init(name: "qtest")
  }

  deinit { readBuffer.deallocate() }

  // MARK: Device

  public override func added(to machine: Machine) {
    machine.interrupts = interrupts
    machine.clock.source = .told
    // The next request comes as soon as its client has seen the last answer. The loop has the machine lock meanwhile, which
    // nobody else wants: there are no processors.
    machine.mainLoop.pollNsMax = Self.pollNsMax
    machine.settled = { [unowned self] in serve() }
    interrupts.tell = { [unowned self] in tellLine($0, asserted: $1) }
    if let number = channel.listenerNumber { listenerHandler = Handler(number, server: self) { $0.clientWaits() } }
    if channel.isConnected { clientCame() } else { listenerHandler?.watch(Int16(POLLIN), on: loop) }
  }

  public override func shutdown() {
    releaseReply()
    flush()
    unwatch()
    listenerHandler?.watch(0, on: loop)
    listenerHandler = nil
    channel.close()
    machine?.settled = {}
    interrupts.tell = { _, _ in true }
  }

  // MARK: The client

  private func clientWaits() {
    // One at a time; others wait in the socket's backlog.
    guard !channel.isConnected, channel.accept() else { return }
    listenerHandler?.watch(0, on: loop)
    clientCame()
  }

  private func clientCame() {
    log?.opened()
    interrupts.clientCame()
    inputHandler = Handler(channel.input, server: self, isPollable: channel.inputIsSocket) { $0.channelReady() }
    if channel.output != channel.input { outputHandler = Handler(channel.output, server: self) { $0.serve() } }
    updateWatching()
  }

  private func clientLeft() {
    log?.closed()
    unwatch()
    channel.disconnect()
    lines.reset()
    (output, outputHead, heldReply) = ([], 0, nil)
    (sawEnd, sendFailed) = (false, false)
    if let listenerHandler {
      listenerHandler.watch(Int16(POLLIN), on: loop)
    } else {
      machine?.requestShutdown(.hostRequest)
    }
  }

  private func unwatch() {
    inputHandler?.watch(0, on: loop)
    outputHandler?.watch(0, on: loop)
    (inputHandler, outputHandler) = (nil, nil)
  }

  // MARK: Input

  // A machine that ends takes no more requests, and what nobody takes is not collected.
  private var mayRead: Bool {
    !sawEnd && heldReply == nil && waitingBytes < QTestLimit.outputBytesMax && machine?.shutdownReason == nil
  }

  private func channelReady() {
    guard channel.isConnected else { return }
    // Where nothing came there may be room for what waits.
    if !takeMore() { serve() }
  }

  /// Takes and serves what has come from the client.
  /// - Returns: false where nothing had.
  private func takeMore() -> Bool {
    guard channel.isConnected, mayRead else { return false }
    let count = channel.read(into: readBuffer)
    if count > 0 {
      lines.append(UnsafeRawBufferPointer(rebasing: readBuffer[..<count]))
    } else if count != -Int(EAGAIN) && count != -Int(EINTR) {
      sawEnd = true
    } else {
      return false
    }
    serve()
    return true
  }

  /// Takes requests as long as there are some and nothing has to be waited for.
  private func serve() {
    guard !isServing, channel.isConnected, let machine else { return }
    isServing = true
    defer { isServing = false }
    flush()
    if heldReply != nil && !isSomethingSettling { releaseReply() }
    var hasMore = true
    while hasMore && !sendFailed {
      guard heldReply == nil, machine.shutdownReason == nil else { break }
      if waitingBytes >= QTestLimit.outputBytesMax {
        flush()
        if waitingBytes >= QTestLimit.outputBytesMax { break }
      }
      hasMore = takeLine(machine)
    }
    flush()
    if sendFailed || sawEnd && !hasMore && heldReply == nil && waitingBytes == 0 { return clientLeft() }
    updateWatching()
  }

  /// - Returns: false where no whole line was there.
  private func takeLine(_ machine: Machine) -> Bool {
    switch lines.next() {
    case .nothing: return false
    case .tooLong:
      reply(QTestFailure("the line is longer than \(QTestLimit.lineBytesMax) bytes"))
    case .line(let range):
      lines.withLine(range) { line in
        log?.received(line)
        do throws(QTestFailure) {
          try execute(try QTestParser.parse(line), line, on: machine)
        } catch {
          reply(error)
        }
      }
    }
    return true
  }

  private var isSomethingSettling: Bool { machine?.devices.contains { $0.isSettling } ?? false }

  private func updateWatching() {
    guard channel.isConnected else { return }
    let input = mayRead ? Int16(POLLIN) : 0
    let output = waitingBytes > 0 ? Int16(POLLOUT) : 0
    if let outputHandler {
      inputHandler?.watch(input, on: loop)
      outputHandler.watch(output, on: loop)
    } else {
      inputHandler?.watch(input | output, on: loop)
    }
  }

  // MARK: Output

  /// Bytes that the client has not taken.
  var waitingBytes: Int { output.count - outputHead }

  /// Writes what waits, as far as there is room.
  private func flush() {
    guard channel.isConnected else { return }
    while waitingBytes > 0 && !sendFailed {
      let head = outputHead
      let count = output.withUnsafeBytes { channel.write(UnsafeRawBufferPointer(rebasing: $0[head...])) }
      if count > 0 {
        outputHead += count
      } else if count == -Int(EAGAIN) {
        return
      } else if count != -Int(EINTR) {
        sendFailed = true
      }
    }
    output.removeAll(keepingCapacity: output.capacity <= QTestLimit.outputBytesMax)
    outputHead = 0
    interrupts.roomCame()
  }

  /// Answers a request, once no device settles. `body` appends the answer's text, without the line's end.
  func reply(_ body: (inout [UInt8]) -> Void) {
    let start = output.count
    body(&output)
    output.append(UInt8(ascii: "\n"))
    if isSomethingSettling {
      // Lines that tell of interrupts may come before it, as they would have, had the device been done at once.
      heldReply = ArraySlice(Array(output[start...]))
      output.removeLast(output.count - start)
    } else {
      log?.sent(output[start...])
    }
  }

  private func reply(_ failure: QTestFailure) {
    reply { output in
      output += "FAIL ".utf8
      output += failure.text.utf8
    }
  }

  private func releaseReply() {
    guard let reply = heldReply else { return }
    heldReply = nil
    log?.sent(reply)
    output += reply
  }

  /// Tells the client of an interrupt line.
  /// - Returns: false where there is no room.
  private func tellLine(_ line: Int, asserted: Bool) -> Bool {
    guard channel.isConnected else { return true }
    guard waitingBytes < QTestLimit.outputBytesMax else { return false }
    let start = output.count
    output += "IRQ \(asserted ? "raise" : "lower") \(line)\n".utf8
    log?.sent(output[start...])
    // Outside a request nobody else sends it. The client is let go of by the loop, not below a device.
    if !isServing {
      flush()
      updateWatching()
    }
    return true
  }
}
