// SPDX-License-Identifier: Apache-2.0
import CLinux

/// Stream sockets within this host: Unix sockets, and TCP on the loopback interface only.
public enum StreamSocket {
  /// Connections that wait for `accept`; the kernel lets further ones wait or refuses them.
  public static let backlog: Int32 = 16

  /// Connects to the Unix socket at `path`.
  /// - Throws: what connect(2) said; ENAMETOOLONG for a path that no address has room for.
  public static func connect(path: String) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try checked("connect") { clinux_unix_connect(path) })
  }

  /// Listens at `path`, where nothing may be yet; the caller removes it afterwards. `accept` does not wait.
  /// - Throws: what bind(2) said: EADDRINUSE where the path exists.
  public static func listen(path: String) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try checked("bind") { clinux_unix_listen(path, backlog) })
  }

  /// Connects to a port of 127.0.0.1.
  public static func connect(loopbackPort port: UInt16) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try checked("connect") { clinux_loopback_connect(port) })
  }

  /// Listens on a port of 127.0.0.1, 0 for a free one; see `port(of:)`. `accept` does not wait.
  public static func listen(loopbackPort port: UInt16) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try checked("bind") { clinux_loopback_listen(port, backlog) })
  }

  /// The port on which a socket of `listen(loopbackPort:)` listens.
  public static func port(of listener: borrowing OwnedDescriptor) throws(SystemError) -> UInt16 {
    let number = listener.number
    return UInt16(truncatingIfNeeded: try checked("getsockname") { clinux_loopback_port(number) })
  }

  /// Takes the next connection.
  /// - Throws: what accept(2) said: EAGAIN where there is none.
  public static func accept(_ listener: borrowing OwnedDescriptor) throws(SystemError) -> OwnedDescriptor {
    let number = listener.number
    return OwnedDescriptor(taking: try checked("accept") { clinux_accept(number) })
  }

  /// Makes two sockets that are connected to each other, and hands them over.
  public static func pair<T>(
    _ use: (consuming OwnedDescriptor, consuming OwnedDescriptor) throws -> T
  ) throws -> T {
    var numbers: [Int32] = [-1, -1]
    _ = try checked("socketpair") { clinux_socketpair(&numbers) }
    return try use(OwnedDescriptor(taking: numbers[0]), OwnedDescriptor(taking: numbers[1]))
  }

  /// Removes a socket's path; nothing happens where it is gone.
  public static func remove(path: String) { _ = clinux_unlink(path) }
}
