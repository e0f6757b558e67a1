// SPDX-License-Identifier: Apache-2.0
import Assembly
import HostSystem
import Monitor

/// The other end of a character device: where a qtest client, a monitor's client or the serial port's reader is.
public enum Endpoint: Equatable, Sendable {
  /// A Unix socket; the machine connects to it, or makes it and listens.
  case unix(path: String, listens: Bool, waits: Bool)
  /// A port of 127.0.0.1: whoever reaches it controls the process and its images.
  case loopback(port: UInt16, listens: Bool, waits: Bool)
  /// Standard input and output.
  case stdio
  /// A descriptor that was inherited.
  case descriptor(Int32)
  /// A file that is written.
  case file(path: String)
  /// Nothing: what is written is lost.
  case null

  /// Reads the short form: `unix:PATH[,server=on][,wait=off]`, `tcp:127.0.0.1:PORT…`, `stdio`, `file:PATH`, `fd:N`, `null`,
  /// `none`.
  /// - Parameter option: the option's name, for the error's line.
  public init(_ text: String, option: String) throws(UsageError) {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    let rest = parts.count > 1 ? parts[1] : ""
    switch parts[0] {
    case "unix", "tcp": self = try Self.socket(kind: parts[0], rest, option: option)
    case "stdio" where parts.count == 1: self = .stdio
    case "null" where parts.count == 1, "none" where parts.count == 1: self = .null
    case "file" where !rest.isEmpty: self = .file(path: rest)
    case "fd":
      guard let number = Int32(rest), number >= 0 else {
        throw UsageError("\(option) \(text): write fd:NUMBER with the number of an open descriptor")
      }
      self = .descriptor(number)
    default:
      throw UsageError("\(option) \(text): write unix:PATH, tcp:127.0.0.1:PORT, stdio, file:PATH, fd:NUMBER or null")
    }
  }

  private static func socket(kind: String, _ text: String, option: String) throws(UsageError) -> Endpoint {
    var list = try KeyValueList(text, option: option, implied: "address")
    guard let address = list.take("address"), !address.isEmpty else {
      throw UsageError("\(option) \(kind):\(text): names no address")
    }
    let listens = try list.takeFlag("server", default: false)
    let waits = try list.takeFlag("wait", default: true)
    list.ignore("nodelay", "reconnect")
    try list.finish()
    if kind == "unix" { return try unix(address, listens, waits, option: option) }
    guard let colon = address.lastIndex(of: ":") else {
      throw UsageError("\(option) \(kind):\(text): write tcp:127.0.0.1:PORT")
    }
    return try loopback(
      host: String(address[..<colon]), port: String(address[address.index(after: colon)...]), listens, waits,
      option: option)
  }

  private static func unix(
    _ path: String, _ listens: Bool, _ waits: Bool, option: String
  ) throws(UsageError) -> Endpoint {
    guard path.utf8.count <= StreamSocket.pathBytesMax else {
      throw UsageError(
        "\(option) unix:\(path): the path of a Unix socket has at most \(StreamSocket.pathBytesMax) bytes; "
          + "choose a shorter one")
    }
    return .unix(path: path, listens: listens, waits: waits)
  }

  private static func loopback(
    host: String, port: String, _ listens: Bool, _ waits: Bool, option: String
  ) throws(UsageError) -> Endpoint {
    guard ["127.0.0.1", "localhost", ""].contains(host) else {
      throw UsageError("\(option): host \(host): there is no password, so only 127.0.0.1 is allowed")
    }
    // A server may have the kernel choose its port.
    guard let number = UInt16(port), number > 0 || listens else {
      throw UsageError("\(option): port '\(port)' is not a number from 1 to 65535")
    }
    return .loopback(port: number, listens: listens, waits: waits)
  }

  /// Reads the long form of `-chardev`: its id, and where it leads.
  static func chardev(_ text: String) throws(UsageError) -> (id: String, endpoint: Endpoint) {
    var list = try KeyValueList(text, option: "-chardev", implied: "backend")
    guard let id = list.take("id"), !id.isEmpty else { throw UsageError("-chardev \(text): has no id=NAME") }
    let backend = list.take("backend") ?? ""
    let endpoint: Endpoint
    switch backend {
    case "socket": endpoint = try socketChardev(&list, text)
    case "stdio":
      list.ignore("signal", "mux", "logfile")
      endpoint = .stdio
    case "null", "ringbuf":
      list.ignore("size")
      endpoint = .null
    case "file":
      guard let path = list.take("path") else { throw UsageError("-chardev \(text): has no path=FILE") }
      list.ignore("append")
      endpoint = .file(path: path)
    default:
      throw UsageError("-chardev \(text): unknown backend '\(backend)'; there are socket, stdio, file and null")
    }
    try list.finish()
    return (id, endpoint)
  }

  private static func socketChardev(_ list: inout KeyValueList, _ text: String) throws(UsageError) -> Endpoint {
    let listens = try list.takeFlag("server", default: false)
    let waits = try list.takeFlag("wait", default: true)
    list.ignore("nodelay", "reconnect", "mux", "logfile", "telnet", "ipv4", "ipv6")
    if let path = list.take("path") {
      guard !path.isEmpty else { throw UsageError("-chardev \(text): path= names no socket; write path=FILE") }
      return try unix(path, listens, waits, option: "-chardev")
    }
    if let text = list.take("fd") {
      guard let number = Int32(text), number >= 0 else {
        throw UsageError("-chardev: fd=\(text) is not the number of an open descriptor")
      }
      return .descriptor(number)
    }
    let host = list.take("host") ?? ""
    guard let port = list.take("port") else {
      throw UsageError("-chardev \(text): a socket needs path=, fd=, or host= and port=")
    }
    return try loopback(host: host, port: port, listens, waits, option: "-chardev")
  }

  /// The same for a monitor.
  public func monitorAddress(option: String) throws(UsageError) -> MonitorAddress {
    switch self {
    case .unix(let path, let listens, let waits):
      return listens ? .listenUnix(path: path, waits: waits) : .connectUnix(path: path)
    case .loopback(let port, let listens, let waits):
      return listens ? .listenLoopback(port: port, waits: waits) : .connectLoopback(port: port)
    case .stdio: return .standardIO
    case .descriptor(let number): return .descriptor(number)
    case .file, .null: throw UsageError("\(option) \(filename): a monitor's client speaks over a socket or stdio")
    }
  }

  /// How clients of a monitor are told of it, as QEMU names such things.
  var filename: String {
    switch self {
    case .unix(let path, let listens, _): "unix:\(path)\(listens ? ",server=on" : "")"
    case .loopback(let port, let listens, _): "tcp:127.0.0.1:\(port)\(listens ? ",server=on" : "")"
    case .stdio: "stdio"
    case .descriptor: "fd"
    case .file: "file"
    case .null: "null"
    }
  }
}
