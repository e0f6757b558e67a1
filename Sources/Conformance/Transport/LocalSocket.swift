// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

/// Unix stream sockets, as far as a qtest client needs them.
enum LocalSocket {
  /// Bytes of `sun_path`, its terminating zero included.
  static let pathBytesMax = 108

  /// A socket that listens at `path`, which must not exist.
  static func listen(at path: String) throws(TransportError) -> OwnedDescriptor {
    let owned = try make()
    let address = try address(of: path)
    let result = withAddress(address) { bind(owned.number, $0, $1) }
    guard result == 0, Glibc.listen(owned.number, 1) == 0 else { throw failure("bind \(path)") }
    return owned
  }

  /// A connection to whoever listens at `path`.
  static func connect(to path: String) throws(TransportError) -> OwnedDescriptor {
    let owned = try make()
    let address = try address(of: path)
    guard withAddress(address, { Glibc.connect(owned.number, $0, $1) }) == 0 else {
      throw failure("connect to \(path)")
    }
    return owned
  }

  /// Waits for one connection for at most `milliseconds`; nil where none came.
  static func accept(_ listener: borrowing OwnedDescriptor, milliseconds: Int32) throws(TransportError)
    -> OwnedDescriptor?
  {
    var entry = pollfd(fd: listener.number, events: Int16(POLLIN), revents: 0)
    let count = poll(&entry, 1, milliseconds)
    if count == 0 || count < 0 && errno == EINTR { return nil }
    let number = Glibc.accept(listener.number, nil, nil)
    guard number >= 0 else { throw failure("accept") }
    _ = fcntl(number, F_SETFD, FD_CLOEXEC)
    return OwnedDescriptor(taking: number)
  }

  /// Two connected sockets.
  static func pair() throws(TransportError) -> (first: Int32, second: Int32) {
    var numbers: [Int32] = [0, 0]
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &numbers) == 0 else {
      throw failure("socketpair")
    }
    return (numbers[0], numbers[1])
  }

  private static func make() throws(TransportError) -> OwnedDescriptor {
    let number = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard number >= 0 else { throw failure("socket") }
    return OwnedDescriptor(taking: number)
  }

  private static func address(of path: String) throws(TransportError) -> sockaddr_un {
    let bytes = Array(path.utf8)
    guard !bytes.isEmpty, bytes.count < pathBytesMax else {
      throw TransportError(.system, "socket path has \(bytes.count) bytes, at most \(pathBytesMax - 1) fit: \(path)")
    }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    return address
  }

  private static func withAddress(
    _ address: sockaddr_un, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
  ) -> Int32 {
    withUnsafePointer(to: address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
  }

  private static func failure(_ operation: String) -> TransportError {
    TransportError(.system, "\(operation): \(SystemError.text(of: errno))")
  }
}
