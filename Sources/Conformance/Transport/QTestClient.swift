// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Glibc
import HostSystem

/// A client of the qtest protocol over one connected stream socket: a line is sent, and the one line that answers it is
/// read, by one write and (as a rule) one read. Replies are parsed strictly. Belongs to one thread.
public final class QTestClient {
  /// A line of an intercepted interrupt controller that changed, reported by the machine unasked.
  public struct InterruptChange: Equatable, Sendable {
    /// The line's number.
    public var line: UInt32
    /// Whether it was raised; else it was lowered.
    public var isRaised: Bool
  }

  /// How long a reply may take before the machine counts as stuck.
  public static let replySecondsMax = 30
  /// No reply line is longer; a longer one is a fault of the machine's.
  public static let replyBytesMax = 4 << 20
  /// No more interrupt changes are kept than this; further ones push the oldest out.
  public static let interruptChangesMax = 65536
  private static let readBytes = 64 << 10
  /// How much of a line an error message shows.
  private static let quotedBytesMax = 120

  private let descriptor: OwnedDescriptor
  private var request: [UInt8] = []
  /// Bytes received; those before `consumed` have been dealt with.
  private var received: [UInt8] = []
  private var consumed = 0
  private let chunk: UnsafeMutableRawBufferPointer
  /// Interrupt changes that came so far, oldest first; the owner takes them away.
  public var interruptChanges: [InterruptChange] = []
  /// Requests sent so far.
  public private(set) var requestCount: UInt64 = 0

  /// Takes a connected stream socket.
  /// - Parameters:
  ///   - descriptor: the socket; it is closed with this object.
  ///   - replySeconds: how long each reply may take.
  public init(taking descriptor: consuming OwnedDescriptor, replySeconds: Int = QTestClient.replySecondsMax) {
    self.descriptor = descriptor
    chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.readBytes, alignment: 16)
    request.reserveCapacity(256)
    received.reserveCapacity(Self.readBytes)
    // The kernel keeps the time, so that a round trip stays at one send and one receive, without a poll between.
    var limit = timeval(tv_sec: replySeconds, tv_usec: 0)
    let size = socklen_t(MemoryLayout<timeval>.size)
    _ = setsockopt(self.descriptor.number, SOL_SOCKET, SO_RCVTIMEO, &limit, size)
    _ = setsockopt(self.descriptor.number, SOL_SOCKET, SO_SNDTIMEO, &limit, size)
  }

  /// Connects to a machine that listens at `path`.
  public static func connect(to path: String) throws(TransportError) -> QTestClient {
    QTestClient(taking: try MachineSocket.connect(to: path))
  }

  deinit { chunk.deallocate() }

  // MARK: Requests

  /// Reads 1, 2 or 4 bytes from a port.
  public func portRead(_ port: UInt16, byteCount: Int) throws(TransportError) -> UInt32 {
    begin(byteCount == 1 ? "inb " : byteCount == 2 ? "inw " : "inl ")
    appendHexadecimal(UInt64(port))
    return UInt32(truncatingIfNeeded: try exchangeForNumber(bitsMax: 32))
  }

  /// Writes 1, 2 or 4 bytes to a port.
  public func portWrite(_ port: UInt16, _ value: UInt32, byteCount: Int) throws(TransportError) {
    begin(byteCount == 1 ? "outb " : byteCount == 2 ? "outw " : "outl ")
    appendHexadecimal(UInt64(port))
    appendSpaced(UInt64(value))
    try exchangeForNothing()
  }

  /// Reads 1, 2, 4 or 8 bytes of memory by one access.
  public func read(_ address: UInt64, byteCount: Int) throws(TransportError) -> UInt64 {
    begin(byteCount == 1 ? "readb " : byteCount == 2 ? "readw " : byteCount == 4 ? "readl " : "readq ")
    appendHexadecimal(address)
    return try exchangeForNumber(bitsMax: 8 * byteCount)
  }

  /// Writes 1, 2, 4 or 8 bytes of memory by one access.
  public func write(_ address: UInt64, _ value: UInt64, byteCount: Int) throws(TransportError) {
    begin(byteCount == 1 ? "writeb " : byteCount == 2 ? "writew " : byteCount == 4 ? "writel " : "writeq ")
    appendHexadecimal(address)
    appendSpaced(value)
    try exchangeForNothing()
  }

  /// Fills memory with one byte's value.
  public func fill(_ address: UInt64, byteCount: UInt64, _ value: UInt8) throws(TransportError) {
    begin("memset ")
    appendHexadecimal(address)
    appendSpaced(byteCount)
    appendSpaced(UInt64(value))
    try exchangeForNothing()
  }

  /// Writes bytes of RAM by one request.
  public func write(_ address: UInt64, _ bytes: [UInt8]) throws(TransportError) {
    guard !bytes.isEmpty else { return }
    begin("write ")
    appendHexadecimal(address)
    appendSpaced(UInt64(bytes.count))
    append(" 0x")
    for byte in bytes {
      request.append(Self.digit(byte >> 4))
      request.append(Self.digit(byte & 0xF))
    }
    try exchangeForNothing()
  }

  /// Reads bytes of RAM by one request, in base64.
  public func readBytes(_ address: UInt64, count: Int) throws(TransportError) -> [UInt8] {
    guard count > 0 else { return [] }
    begin("b64read ")
    appendHexadecimal(address)
    appendSpaced(UInt64(count))
    let reply = try exchange()
    let text = Data(reply.dropFirst(3))
    // Foundation takes padding where there should be none; what it writes itself is the one right form.
    guard reply.starts(with: "OK ".utf8), let bytes = Data(base64Encoded: text), bytes.count == count,
      bytes.base64EncodedData() == text
    else { throw badReply(reply) }
    return Array(bytes)
  }

  /// Asks for the machine's byte order, as clients do first.
  /// - Throws: also where it is not little.
  public func checkByteOrder() throws(TransportError) {
    begin("endianness")
    let reply = try exchange()
    guard reply.elementsEqual("OK little".utf8) else { throw badReply(reply) }
  }

  /// Sends one line as it is, and returns the line that answers it, FAIL or not.
  /// - Precondition: `line` has no line break.
  public func send(line: String) throws(TransportError) -> String {
    precondition(!line.utf8.contains(10))
    begin("")
    append(line)
    return String(decoding: try exchange(refusing: false), as: UTF8.self)
  }

  // MARK: Building

  private func begin(_ verb: StaticString) {
    request.removeAll(keepingCapacity: true)
    request.append(contentsOf: UnsafeBufferPointer(start: verb.utf8Start, count: verb.utf8CodeUnitCount))
  }

  private func append(_ text: String) { request.append(contentsOf: text.utf8) }

  private func appendSpaced(_ value: UInt64) {
    request.append(UInt8(ascii: " "))
    appendHexadecimal(value)
  }

  private func appendHexadecimal(_ value: UInt64) {
    request.append(UInt8(ascii: "0"))
    request.append(UInt8(ascii: "x"))
    var shift = value == 0 ? 0 : (63 - value.leadingZeroBitCount) & ~3
    while shift >= 0 {
      request.append(Self.digit(UInt8(truncatingIfNeeded: value >> UInt64(shift) & 0xF)))
      shift -= 4
    }
  }

  private static func digit(_ value: UInt8) -> UInt8 {
    value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + value - 10
  }

  // MARK: Round trips

  private func exchangeForNothing() throws(TransportError) {
    let reply = try exchange()
    guard reply.count == 2 else { throw badReply(reply) }
  }

  private func exchangeForNumber(bitsMax: Int) throws(TransportError) -> UInt64 {
    let reply = try exchange()
    guard reply.count > 5, reply.starts(with: "OK 0x".utf8), reply.count <= 5 + 16 else { throw badReply(reply) }
    var value: UInt64 = 0
    for byte in reply.dropFirst(5) {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt64(byte - UInt8(ascii: "0"))
      case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt64(byte - UInt8(ascii: "a") + 10)
      default: throw badReply(reply)
      }
    }
    guard bitsMax >= 64 || value >> UInt64(bitsMax) == 0 else { throw badReply(reply) }
    return value
  }

  /// Sends `request` and returns the line that answers it, without its line break.
  private func exchange(refusing: Bool = true) throws(TransportError) -> ArraySlice<UInt8> {
    requestCount += 1
    request.append(10)
    try sendAll()
    while true {
      let line = try nextLine()
      if line.starts(with: "IRQ ".utf8) {
        try noteInterrupt(line)
        continue
      }
      if line.starts(with: "OK".utf8), line.count == 2 || line[line.startIndex + 2] == UInt8(ascii: " ") {
        return line
      }
      guard line.starts(with: "FAIL".utf8) else { throw badReply(line) }
      if refusing { throw TransportError(.refused, "\(quotedRequest) was refused: \(Self.quoted(line))") }
      return line
    }
  }

  private func sendAll() throws(TransportError) {
    var sent = 0
    while sent < request.count {
      let result = request.withUnsafeBytes {
        Glibc.send(descriptor.number, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
      }
      if result >= 0 {
        sent += result
      } else if errno == EPIPE || errno == ECONNRESET {
        throw TransportError(.closed, "the machine closed the connection before \(quotedRequest)")
      } else if errno == EAGAIN {
        throw TransportError(.timedOut, "the machine does not take \(quotedRequest)")
      } else if errno != EINTR {
        throw TransportError(.system, "send: \(SystemError.text(of: errno))")
      }
    }
  }

  private func nextLine() throws(TransportError) -> ArraySlice<UInt8> {
    if consumed == received.count {
      received.removeAll(keepingCapacity: true)
      consumed = 0
    }
    var searched = consumed
    while true {
      if let end = received[searched...].firstIndex(of: 10) {
        let line = received[consumed..<end]
        consumed = end + 1
        return line
      }
      searched = received.count
      guard received.count - consumed < Self.replyBytesMax else {
        throw TransportError(.badReply, "the reply to \(quotedRequest) has more than \(Self.replyBytesMax) bytes")
      }
      try receiveMore()
    }
  }

  private func receiveMore() throws(TransportError) {
    while true {
      let count = recv(descriptor.number, chunk.baseAddress, chunk.count, 0)
      if count > 0 {
        received.append(contentsOf: chunk[..<count])
        return
      }
      if count == 0 || errno == ECONNRESET {
        throw TransportError(.closed, "the machine closed the connection instead of answering \(quotedRequest)")
      }
      if errno == EAGAIN { throw TransportError(.timedOut, "no reply to \(quotedRequest) in time") }
      if errno != EINTR { throw TransportError(.system, "recv: \(SystemError.text(of: errno))") }
    }
  }

  private func noteInterrupt(_ line: ArraySlice<UInt8>) throws(TransportError) {
    let words = line.split(separator: UInt8(ascii: " "))
    guard words.count == 3, let number = UInt32(String(decoding: words[2], as: UTF8.self)),
      words[1].elementsEqual("raise".utf8) || words[1].elementsEqual("lower".utf8)
    else {
      throw badReply(line)
    }
    if interruptChanges.count == Self.interruptChangesMax { interruptChanges.removeFirst() }
    interruptChanges.append(InterruptChange(line: number, isRaised: words[1].elementsEqual("raise".utf8)))
  }

  private var quotedRequest: String { Self.quoted(request.dropLast(request.last == 10 ? 1 : 0)) }

  private func badReply(_ line: ArraySlice<UInt8>) -> TransportError {
    TransportError(.badReply, "\(quotedRequest) was answered by \(Self.quoted(line))")
  }

  private static func quoted(_ line: ArraySlice<UInt8>) -> String {
    let text = String(
      decoding: line.prefix(quotedBytesMax).map { $0 < 32 || $0 > 126 ? UInt8(ascii: "?") : $0 }, as: UTF8.self)
    return line.count > quotedBytesMax ? "\"\(text)…\"" : "\"\(text)\""
  }
}
