// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc
import HostSystem

/// Why there is no way to a qtest client, as one line without the option's name.
public struct QTestError: Error, Equatable, CustomStringConvertible, Sendable {
  /// The line.
  public let description: String

  /// Makes the line.
  public init(_ description: String) { self.description = description }
}

/// Where a qtest client is, as `-qtest` says it.
public enum QTestEndpoint: Equatable, Sendable {
  /// A Unix socket: the client listens there, or this process does.
  case unix(path: String, isServer: Bool)
  /// A port of 127.0.0.1: the client listens there, or this process does.
  case loopback(port: UInt16, isServer: Bool)
  /// Standard input and output.
  case standardStreams
}

/// The way to a qtest client: a connected pair of descriptors, or a socket that waits for one client at a time.
///
/// Made on the main thread; used on the main loop's thread. It owns its descriptors, but for standard input and output.
public final class QTestChannel {
  /// Bytes that a pipe takes at once where it says that it is writable.
  private static let pipeBytesMax = 4096

  private var connection: OwnedDescriptor?
  private var listener: OwnedDescriptor?
  // To be removed at the end.
  private var socketPath: String?
  /// What is read from and written to; -1 while no client is there.
  private(set) var input: Int32 = -1, output: Int32 = -1
  /// Whether a read comes back at once where nothing is there.
  private(set) var inputIsSocket = false
  private var outputIsSocket = false

  /// Connects, or begins to listen.
  /// - Throws: one line that says why that is not possible.
  public init(opening endpoint: QTestEndpoint) throws(QTestError) {
    switch endpoint {
    case .standardStreams: use(input: STDIN_FILENO, output: STDOUT_FILENO)
    case .unix(let path, false):
      take(
        try Self.open("unix:\(path)", "connect to") { () throws(SystemError) in try StreamSocket.connect(path: path) })
    case .loopback(let port, false):
      take(
        try Self.open("tcp:127.0.0.1:\(port)", "connect to") { () throws(SystemError) in
          try StreamSocket.connect(loopbackPort: port)
        })
    case .unix(let path, true):
      listener = try Self.open("unix:\(path)", "listen at") { () throws(SystemError) in
        try StreamSocket.listen(path: path)
      }
      socketPath = path
    case .loopback(let port, true):
      listener = try Self.open("tcp:127.0.0.1:\(port)", "listen at") { () throws(SystemError) in
        try StreamSocket.listen(loopbackPort: port)
      }
    }
  }

  /// Takes a descriptor that is connected to the client already.
  public init(taking descriptor: consuming OwnedDescriptor) { take(descriptor) }

  /// Reads and writes descriptors that someone else owns and keeps open until the machine has ended: pipes, files, a
  /// terminal. The process ignores SIGPIPE.
  public init(borrowingInput input: Int32, output: Int32) { use(input: input, output: output) }

  private static func open(
    _ name: String, _ verb: String, _ body: () throws(SystemError) -> OwnedDescriptor
  ) throws(QTestError) -> OwnedDescriptor {
    do throws(SystemError) {
      return try body()
    } catch {
      switch error.code {
      case ENAMETOOLONG: throw QTestError("\(name): a socket's path has at most 107 bytes; use a shorter one")
      case EADDRINUSE: throw QTestError("\(name): it exists or is in use; remove it, or choose another one")
      default: throw QTestError("\(name): cannot \(verb) it: \(SystemError.text(of: error.code))")
      }
    }
  }

  private func take(_ descriptor: consuming OwnedDescriptor) {
    let number = descriptor.number
    connection = consume descriptor
    use(input: number, output: number)
  }

  private func use(input: Int32, output: Int32) {
    (self.input, self.output) = (input, output)
    inputIsSocket = clinux_is_socket(input) == 1
    outputIsSocket = clinux_is_socket(output) == 1
  }

  /// Whether a client is there.
  var isConnected: Bool { input >= 0 }
  /// The socket that waits for clients; nil where this process has connected to its client.
  var listenerNumber: Int32? { listener?.number }

  /// Takes the next client that waits.
  /// - Returns: false where there is none.
  func accept() -> Bool {
    guard connection == nil, let number = listenerNumber else { return false }
    let client = clinux_accept(number)
    guard client >= 0 else { return false }
    take(OwnedDescriptor(taking: client))
    return true
  }

  /// Lets go of the client.
  func disconnect() {
    (input, output) = (-1, -1)
    connection = nil
  }

  /// Lets go of everything.
  func close() {
    disconnect()
    listener = nil
    if let socketPath { StreamSocket.remove(path: socketPath) }
    socketPath = nil
  }

  /// Reads what is there; 0 at the end, else a negative errno value.
  func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    guard let base = buffer.baseAddress else { return -Int(EAGAIN) }
    return inputIsSocket ? clinux_receive(input, base, buffer.count) : clinux_read(input, base, buffer.count)
  }

  /// Writes as much as there is room for, without waiting; else a negative errno value.
  func write(_ bytes: UnsafeRawBufferPointer) -> Int {
    guard let base = bytes.baseAddress, !bytes.isEmpty else { return 0 }
    if outputIsSocket { return clinux_send(output, base, bytes.count) }
    // The descriptor may be shared with other processes, so it is not made non-blocking; one that can be written takes a
    // small piece at once.
    var state = pollfd(fd: output, events: Int16(POLLOUT), revents: 0)
    var now = timespec()
    guard clinux_ppoll(&state, 1, &now, nil) > 0 else { return -Int(EAGAIN) }
    return clinux_write(output, base, min(bytes.count, Self.pipeBytesMax))
  }
}
