// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Stream sockets within this host: Unix sockets, and TCP on the loopback interface only.
public enum StreamSocket {
  /// Connections that wait for `accept`; the kernel lets further ones wait or refuses them.
  public static let backlog: Int32 = 16

  /// Bytes of the path of a Unix socket, at most.
  public static let pathBytesMax = Int(clinux_unix_path_max)

  /// Connects to the Unix socket at `path`.
  /// - Throws: what connect(2) said; ENAMETOOLONG for a path that no address has room for.
  public static func connect(path: String) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try checked("connect") { clinux_unix_connect(path) })
  }

  /// Listens at `path`; the caller removes it afterwards. `accept` does not wait. A socket at which nobody listens any more
  /// makes room.
  /// - Parameter backlog: how many clients wait in the kernel.
  /// - Throws: EADDRINUSE where the path is in use or is no socket; what the calls said otherwise.
  public static func listen(path: String, backlog: Int32 = backlog) throws(SystemError) -> OwnedDescriptor {
    if clinux_path_is_socket(path) == 1, !answers(path) { unlink(path) }
    return OwnedDescriptor(taking: try checked("bind") { clinux_unix_listen(path, backlog) })
  }

  private static func answers(_ path: String) -> Bool {
    do throws(SystemError) {
      _ = try connect(path: path)
      return true
    } catch {
      return error.code != ECONNREFUSED
    }
  }

  /// Connects to a port of 127.0.0.1.
  public static func connect(loopbackPort port: UInt16) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try checked("connect") { clinux_loopback_connect(port) })
  }

  /// Listens on a port of 127.0.0.1, 0 for a free one; see `port(of:)`. `accept` does not wait.
  public static func listen(
    loopbackPort port: UInt16, backlog: Int32 = backlog
  ) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try checked("bind") { clinux_loopback_listen(port, backlog) })
  }

  /// The port on which a socket of `listen(loopbackPort:)` listens.
  public static func port(of listener: borrowing OwnedDescriptor) throws(SystemError) -> UInt16 {
    let number = listener.number
    return UInt16(truncatingIfNeeded: try checked("getsockname") { clinux_loopback_port(number) })
  }

  /// Takes a client that has connected to a listening socket; nil where none is waiting.
  public static func accept(_ listener: borrowing OwnedDescriptor) throws(SystemError) -> OwnedDescriptor? {
    let number = listener.number
    do throws(SystemError) {
      return OwnedDescriptor(taking: try checked("accept") { clinux_accept(number) })
    } catch {
      // A client that has gone again is not worth a word.
      if error.code == EAGAIN || error.code == ECONNABORTED { return nil }
      throw error
    }
  }

  /// A second descriptor for the same file.
  public static func duplicate(_ descriptor: Int32) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try checked("dup") { clinux_duplicate(descriptor) })
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
