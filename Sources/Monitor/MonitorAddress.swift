// SPDX-License-Identifier: Apache-2.0
import Assembly
import HostSystem

/// Where a monitor's client is.
public enum MonitorAddress: Equatable, Sendable {
  /// A program listens at this path.
  case connectUnix(path: String)
  /// The monitor listens at this path.
  case listenUnix(path: String, waits: Bool)
  /// A program listens at this port of 127.0.0.1.
  case connectLoopback(port: UInt16)
  /// The monitor listens at this port of 127.0.0.1.
  case listenLoopback(port: UInt16, waits: Bool)
  /// Standard input and output.
  case standardIO
  /// A connected socket that the process was given; the monitor closes it.
  case descriptor(Int32)

  /// Reads the short form: `unix:PATH`, `tcp:127.0.0.1:PORT` (both with `,server=on` and `,wait=off`), `stdio`, `fd:N`.
  /// - Parameter option: the option's name, for the error text.
  public init(parsing text: String, option: String) throws(UsageError) {
    if text == "stdio" {
      self = .standardIO
      return
    }
    let (head, rest) = Self.cut(text)
    let options = try OptionList(rest, option: option, known: ["server", "wait", "nowait", "nodelay"], flags: true)
    let (isServer, waits) = try Self.server(options)
    if head.hasPrefix("unix:") {
      try self.init(path: String(head.dropFirst(5)), isServer: isServer, waits: waits, option: option)
    } else if head.hasPrefix("tcp:") {
      let parts = head.dropFirst(4).split(separator: ":", omittingEmptySubsequences: false).map(String.init)
      guard parts.count == 2 else { throw UsageError("\(option) \(text): write tcp:127.0.0.1:PORT") }
      try self.init(host: parts[0], port: parts[1], isServer: isServer, waits: waits, option: option)
    } else if head.hasPrefix("fd:"), let number = Int32(head.dropFirst(3)), number >= 0 {
      self = .descriptor(number)
    } else {
      throw UsageError("\(option) \(text): unknown; write unix:PATH, tcp:127.0.0.1:PORT, fd:NUMBER or stdio")
    }
  }

  /// Reads the value of `-chardev` after its backend's name, without `id=`: `socket` with `path=`, or `host=` and `port=`,
  /// or `fd=`, and `server=` and `wait=`; `stdio`.
  public init(chardev backend: String, options text: String, option: String) throws(UsageError) {
    let known = ["path", "host", "port", "fd", "server", "wait", "nowait", "nodelay", "ipv4", "reconnect", "signal"]
    let options = try OptionList(text, option: option, known: known, flags: true)
    if backend == "stdio" {
      self = .standardIO
      return
    }
    guard backend == "socket" else {
      throw UsageError("\(option): backend '\(backend)' carries no monitor; choose socket or stdio")
    }
    let (isServer, waits) = try Self.server(options)
    if let path = options["path"] {
      try self.init(path: path, isServer: isServer, waits: waits, option: option)
    } else if let number = options["fd"] {
      guard let number = Int32(number), number >= 0 else {
        throw UsageError("\(option): fd=\(number) is not the number of a descriptor")
      }
      self = .descriptor(number)
    } else {
      let host = options["host"] ?? "127.0.0.1"
      try self.init(host: host, port: options["port"] ?? "", isServer: isServer, waits: waits, option: option)
    }
  }

  private init(path: String, isServer: Bool, waits: Bool, option: String) throws(UsageError) {
    guard !path.isEmpty else { throw UsageError("\(option): no path is named; write unix:PATH") }
    guard path.utf8.count <= StreamSocket.pathBytesMax else {
      throw UsageError(
        "\(option): \(path): the path of a Unix socket has at most \(StreamSocket.pathBytesMax) bytes; "
          + "choose a shorter one")
    }
    self = isServer ? .listenUnix(path: path, waits: waits) : .connectUnix(path: path)
  }

  private init(host: String, port: String, isServer: Bool, waits: Bool, option: String) throws(UsageError) {
    guard ["127.0.0.1", "localhost", ""].contains(host) else {
      throw UsageError("\(option): host \(host): a monitor has no password, so it is on 127.0.0.1 only")
    }
    guard let number = UInt16(port), number > 0 || isServer else {
      throw UsageError("\(option): port '\(port)' is not a number from 1 to 65535")
    }
    self = isServer ? .listenLoopback(port: number, waits: waits) : .connectLoopback(port: number)
  }

  /// A server waits for its client by default, as QEMU's do.
  private static func server(_ options: OptionList) throws(UsageError) -> (isServer: Bool, waits: Bool) {
    let isServer = try options.flag("server", default: false)
    let hasNoWait = try options.flag("nowait", default: false)
    return (isServer, try options.flag("wait", default: !hasNoWait))
  }

  /// Cuts a text at its first single comma.
  private static func cut(_ text: String) -> (head: String, rest: String) {
    var head = ""
    var rest = text[...]
    while let character = rest.popFirst() {
      if character == "," {
        guard rest.first == "," else { break }
        rest = rest.dropFirst()
      }
      head.append(character)
    }
    return (head, String(rest))
  }
}
