// SPDX-License-Identifier: Apache-2.0
import Assembly

/// The other end of a character device: where a qtest client, a monitor's client or the serial port's reader is.
public enum Endpoint: Equatable, Sendable {
  /// A Unix socket; the machine connects to it, or makes it and listens.
  case unix(path: String, listens: Bool, waits: Bool)
  /// A TCP port of this host.
  case tcp(host: String, port: UInt16, listens: Bool, waits: Bool)
  /// Standard input and output.
  case stdio
  /// A descriptor that was inherited.
  case descriptor(Int32)
  /// A file that is written.
  case file(path: String)
  /// Nothing: what is written is lost.
  case null

  /// Reads the short form: `unix:PATH[,server=on][,wait=off]`, `tcp:HOST:PORT…`, `stdio`, `file:PATH`, `fd:N`, `null`, `none`.
  init(_ text: String, option: String) throws(UsageError) {
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
    if kind == "unix" { return .unix(path: address, listens: listens, waits: waits) }
    guard let colon = address.lastIndex(of: ":"), let port = UInt16(address[address.index(after: colon)...]) else {
      throw UsageError("\(option) \(kind):\(text): write tcp:HOST:PORT")
    }
    let host = String(address[..<colon])
    return .tcp(host: host.isEmpty ? "127.0.0.1" : host, port: port, listens: listens, waits: waits)
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
      return .unix(path: path, listens: listens, waits: waits)
    }
    if let text = list.take("fd") {
      guard let number = Int32(text), number >= 0 else {
        throw UsageError("-chardev: fd=\(text) is not the number of an open descriptor")
      }
      return .descriptor(number)
    }
    let host = list.take("host") ?? "127.0.0.1"
    guard let text = list.take("port"), let port = UInt16(text) else {
      throw UsageError("-chardev \(text): a socket needs path=, fd=, or host= and port=")
    }
    return .tcp(host: host, port: port, listens: listens, waits: waits)
  }

  /// How clients of a monitor are told of it, as QEMU names such things.
  var filename: String {
    switch self {
    case .unix(let path, let listens, _): "unix:\(path)\(listens ? ",server=on" : "")"
    case .tcp(let host, let port, let listens, _): "tcp:\(host):\(port)\(listens ? ",server=on" : "")"
    case .stdio: "stdio"
    case .descriptor: "fd"
    case .file: "file"
    case .null: "null"
    }
  }
}
