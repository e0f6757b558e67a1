// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

/// The sockets between a client here and a machine elsewhere.
enum MachineSocket {
  /// Connects to a machine that listens at `path`.
  static func connect(to path: String) throws(TransportError) -> OwnedDescriptor {
    do throws(SystemError) { return try StreamSocket.connect(path: path) } catch {
      throw TransportError(.system, "connect to \(path): \(SystemError.text(of: error.code))")
    }
  }

  /// Listens at `path`, to which a machine will connect.
  static func listen(at path: String) throws(TransportError) -> OwnedDescriptor {
    do throws(SystemError) { return try StreamSocket.listen(path: path) } catch {
      throw TransportError(.system, "listen at \(path): \(SystemError.text(of: error.code))")
    }
  }

  /// Waits at most `milliseconds` for a machine to connect; nil where none has.
  static func accept(
    _ listener: borrowing OwnedDescriptor, milliseconds: Int32
  ) throws(TransportError) -> OwnedDescriptor? {
    var entry = pollfd(fd: listener.number, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, milliseconds) > 0 else { return nil }
    do throws(SystemError) { return try StreamSocket.accept(listener) } catch {
      throw TransportError(.system, "accept: \(SystemError.text(of: error.code))")
    }
  }
}
