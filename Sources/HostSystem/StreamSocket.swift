// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Stream sockets for programs that control the process: Unix sockets, and TCP on the loopback address alone. Any thread.
public enum StreamSocket {
  /// Bytes of the path of a Unix socket, at most.
  public static let pathBytesMax = Int(clinux_unix_path_max)

  /// Connects to a program that listens at a path.
  /// - Throws: what socket(2) or connect(2) said; ENAMETOOLONG for a path of more than `pathBytesMax` bytes.
  public static func connect(path: String) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try checked("connect") { clinux_unix_connect(path) })
  }

  /// Listens at a path, which is a socket from then on. A socket at which nobody listens any more makes room.
  /// - Parameter backlog: how many clients wait in the kernel.
  /// - Throws: EADDRINUSE where the path is in use or is no socket; what the calls said otherwise.
  public static func listen(path: String, backlog: Int32) throws(SystemError) -> OwnedDescriptor {
    if clinux_is_socket(path) == 1, !answers(path) { unlink(path) }
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

  /// Listens at a port of 127.0.0.1; port 0 takes a free one, which `boundPort` tells.
  public static func listen(loopbackPort port: UInt16, backlog: Int32) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try checked("bind") { clinux_loopback_listen(port, backlog) })
  }

  /// The port of 127.0.0.1 that a socket is bound to.
  public static func boundPort(of descriptor: Int32) throws(SystemError) -> UInt16 {
    UInt16(try checked("getsockname") { clinux_loopback_port(descriptor) })
  }

  /// Takes a client that has connected to a listening socket; nil where none is waiting.
  public static func accept(_ listener: Int32) throws(SystemError) -> OwnedDescriptor? {
    do throws(SystemError) {
      return OwnedDescriptor(taking: try checked("accept") { clinux_accept(listener) })
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
}
