// SPDX-License-Identifier: Apache-2.0
// A machine with both of its sockets, at the level of ports, memory and monitor commands.
import Foundation
import Testing

/// A machine that runs, started with the options that QEMU's test library always gives.
final class Machine {
  let process: ShellProcess
  let folder: Folder
  let monitor: MonitorSocket
  private var qtest: LineSocket?
  /// The interrupt lines that changed, as the machine has told of them.
  private(set) var interrupts: [String] = []
  /// The next byte of RAM that nobody has; below, QEMU's test library allocates nothing either.
  private var freeMemory: UInt64 = 1 << 20

  /// The ages of QEMU's test library, each with what it writes after the sockets.
  enum Library: String {
    case v7 = "-mon chardev=char0,mode=control -display none"
    case v10 = "-mon chardev=char0,mode=control -display none -audio none"
    case newest =
      "-object monitor-qmp,id=qmp0,chardev=char0 -display none -audio none -run-with exit-with-parent=on"
  }

  /// - Parameters:
  ///   - options: beside the usual ones.
  ///   - library: whose usual options it is started with.
  ///   - variable: NAME=VALUE of its environment.
  init(_ options: String, folder: Folder? = nil, library: Library = .v7, variable: String? = nil) throws {
    let folder = try folder ?? Folder()
    self.folder = folder
    let name = UUID().uuidString.prefix(8)
    let qtestListener = try ListeningSocket(folder.file("qtest-\(name)"))
    let monitorListener = try ListeningSocket(folder.file("qmp-\(name)"))
    process = try ShellProcess(
      "-qtest unix:\(qtestListener.path) -qtest-log /dev/null -chardev socket,path=\(monitorListener.path),id=char0 "
        + "\(library.rawValue) \(options) -accel qtest",
      folder: folder, variable: variable)
    qtest = try qtestListener.accept(from: process)
    monitor = MonitorSocket(try monitorListener.accept(from: process))
    try monitor.greet()
    guard try ask("endianness") == "OK little" else { throw Trouble("the machine is not little-endian") }
  }

  /// Ends the connection, as a test program does that dies.
  func vanish() { qtest = nil }

  // MARK: Lines

  /// Sends a line and returns the one that answers it.
  func ask(_ line: String) throws -> String {
    guard let qtest else { throw Trouble("the connection is closed") }
    try qtest.send(line)
    while let reply = try qtest.line() {
      guard reply.hasPrefix("IRQ ") else { return reply }
      interrupts.append(reply)
    }
    throw Trouble("no reply to \(line.prefix(80))")
  }

  private func order(_ line: String) throws {
    let reply = try ask(line)
    guard reply == "OK" else { throw Trouble("\(line.prefix(80)): \(reply.prefix(80))") }
  }

  private func number(_ line: String) throws -> UInt64 {
    let reply = try ask(line)
    guard reply.hasPrefix("OK 0x"), let value = UInt64(reply.dropFirst(5), radix: 16) else {
      throw Trouble("\(line): \(reply)")
    }
    return value
  }

  // MARK: Ports

  enum Width: String {
    case byte = "b"
    case word = "w"
    case long = "l"
    case quad = "q"
  }

  func input(_ port: UInt64, _ width: Width = .long) throws -> UInt32 {
    UInt32(try number("in\(width.rawValue) 0x\(String(port, radix: 16))"))
  }

  func output(_ port: UInt64, _ value: UInt32, _ width: Width = .long) throws {
    try order("out\(width.rawValue) 0x\(String(port, radix: 16)) 0x\(String(value, radix: 16))")
  }

  // MARK: Memory

  func load(_ address: UInt64, _ width: Width) throws -> UInt64 {
    try number("read\(width.rawValue) 0x\(String(address, radix: 16))")
  }

  func store(_ address: UInt64, _ value: UInt64, _ width: Width) throws {
    try order("write\(width.rawValue) 0x\(String(address, radix: 16)) 0x\(String(value, radix: 16))")
  }

  /// Four bytes by `read`, as QEMU's AHCI library reads registers.
  func register(_ address: UInt64) throws -> UInt32 { try hex(address, 4).littleEndian32(at: 0) }

  func setRegister(_ address: UInt64, _ value: UInt32) throws {
    let digits = value.bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    try order("write 0x\(String(address, radix: 16)) 0x4 0x\(digits)")
  }

  /// Bytes by `read`, whose digits are lower case.
  func hex(_ address: UInt64, _ count: Int) throws -> [UInt8] {
    let reply = Array(try ask("read 0x\(String(address, radix: 16)) 0x\(String(count, radix: 16))").utf8)
    guard reply.starts(with: Array("OK 0x".utf8)), reply.count == 5 + 2 * count else { throw Trouble("read") }
    func digit(_ byte: UInt8) throws -> UInt8 {
      switch byte {
      case 0x30...0x39: byte - 0x30
      case 0x61...0x66: byte - 0x61 + 10
      default: throw Trouble("read: not a lower-case digit")
      }
    }
    return try stride(from: 5, to: reply.count, by: 2).map { try digit(reply[$0]) << 4 | digit(reply[$0 + 1]) }
  }

  /// Bytes by `b64read`.
  func bytes(_ address: UInt64, _ count: Int) throws -> [UInt8] {
    let reply = try ask("b64read 0x\(String(address, radix: 16)) 0x\(String(count, radix: 16))")
    guard reply.hasPrefix("OK "), let data = Data(base64Encoded: String(reply.dropFirst(3))), data.count == count else {
      throw Trouble("b64read: \(reply.prefix(80))")
    }
    return Array(data)
  }

  func setBytes(_ address: UInt64, _ bytes: [UInt8]) throws {
    let text = Data(bytes).base64EncodedString()
    try order("b64write 0x\(String(address, radix: 16)) 0x\(String(bytes.count, radix: 16)) \(text)")
  }

  func fill(_ address: UInt64, _ count: Int, _ value: UInt8) throws {
    try order("memset 0x\(String(address, radix: 16)) 0x\(String(count, radix: 16)) 0x\(String(value, radix: 16))")
  }

  /// RAM that nobody else has.
  func allocate(_ count: Int, alignment: UInt64 = 4096) -> UInt64 {
    freeMemory = (freeMemory + alignment - 1) & ~(alignment - 1)
    defer { freeMemory += UInt64(count) }
    return freeMemory
  }

  /// Waits until something is so. The machine works while it is asked, so no pause is needed; the bound is a watchdog.
  func wait(_ what: String, _ isSo: () throws -> Bool) throws {
    let end = Date().addingTimeInterval(30)
    while Date() < end {
      if try isSo() { return }
      usleep(200)
    }
    throw Trouble("waited in vain: \(what)")
  }

  // MARK: PCI

  /// A function's place: slot and function.
  struct Place {
    let device: UInt32
    let function: UInt32
    static let ahci = Place(device: 0x1f, function: 2)
    static let disk = Place(device: 4, function: 0)
  }

  /// Reads configuration space as QEMU's test library does: always at 0xcfc, the low bits of the offset in 0xcf8.
  func config(_ place: Place, _ offset: UInt32, _ width: Width = .long) throws -> UInt32 {
    try output(0xcf8, 0x8000_0000 | place.device << 11 | place.function << 8 | offset)
    return try input(0xcfc, width)
  }

  func setConfig(_ place: Place, _ offset: UInt32, _ value: UInt32, _ width: Width = .long) throws {
    try output(0xcf8, 0x8000_0000 | place.device << 11 | place.function << 8 | offset)
    try output(0xcfc, value, width)
  }

  /// Offsets of the capabilities, with their identifiers, in order.
  func capabilities(_ place: Place) throws -> [(id: UInt32, offset: UInt32)] {
    var found: [(UInt32, UInt32)] = []
    var offset = try config(place, 0x34, .byte)
    while offset != 0 && found.count < 48 {
      found.append((try config(place, offset, .byte), offset))
      offset = try config(place, offset + 1, .byte)
    }
    return found
  }
}

extension FixedWidthInteger {
  /// Little-endian bytes.
  var bytes: [UInt8] { withUnsafeBytes(of: littleEndian) { Array($0) } }
}

extension Array where Element == UInt8 {
  func littleEndian16(at offset: Int) -> UInt16 { UInt16(self[offset]) | UInt16(self[offset + 1]) << 8 }
  func littleEndian32(at offset: Int) -> UInt32 {
    UInt32(littleEndian16(at: offset)) | UInt32(littleEndian16(at: offset + 2)) << 16
  }
  func littleEndian64(at offset: Int) -> UInt64 {
    UInt64(littleEndian32(at: offset)) | UInt64(littleEndian32(at: offset + 4)) << 32
  }
}

/// Bytes that are never the same twice in a test.
func pattern(_ count: Int, seed: UInt8 = 1) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ ($0 >> 9) &* 13 &+ Int(seed)) }
}

/// The monitor's socket.
final class MonitorSocket {
  private let socket: LineSocket
  /// Everything that came, in order: `return`, `error`, or an event's name.
  private(set) var history: [String] = []
  /// The events that came, with their data.
  private(set) var events: [(name: String, data: [String: Any])] = []
  private(set) var greeting: [String: Any] = [:]

  init(_ socket: LineSocket) { self.socket = socket }

  /// Reads the greeting, which comes unasked, and negotiates.
  func greet() throws {
    guard let object = try object()["QMP"] as? [String: Any] else { throw Trouble("no greeting") }
    greeting = object
    let answer = try execute("qmp_capabilities")
    guard let nothing = answer as? [String: Any], nothing.isEmpty else { throw Trouble("\(answer)") }
  }

  private func object() throws -> [String: Any] {
    guard let line = try socket.line() else { throw Trouble("the monitor has closed the connection") }
    guard let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any] else {
      throw Trouble("not an object: \(line)")
    }
    return object
  }

  /// Sends a command and returns what it returns.
  @discardableResult func execute(_ command: String, _ arguments: [String: Any] = [:]) throws -> Any {
    try send(command, arguments)
    return try answer(to: command)
  }

  /// Executes a command that is refused.
  /// - Returns: the error's class and text.
  func refusal(_ command: String, _ arguments: [String: Any] = [:]) throws -> (kind: String, text: String) {
    try send(command, arguments)
    while true {
      let object = try object()
      if let error = object["error"] as? [String: Any] {
        history.append("error")
        return (error["class"] as? String ?? "", error["desc"] as? String ?? "")
      }
      guard note(object) else { throw Trouble("\(command) was not refused: \(object)") }
    }
  }

  private func send(_ command: String, _ arguments: [String: Any]) throws {
    var request: [String: Any] = ["execute": command]
    if !arguments.isEmpty { request["arguments"] = arguments }
    try socket.send(String(decoding: try JSONSerialization.data(withJSONObject: request), as: UTF8.self))
  }

  private func answer(to command: String) throws -> Any {
    while true {
      let object = try object()
      if let result = object["return"] {
        history.append("return")
        return result
      }
      guard note(object) else { throw Trouble("\(command): \(object)") }
    }
  }

  private func note(_ object: [String: Any]) -> Bool {
    guard let name = object["event"] as? String else { return false }
    history.append(name)
    events.append((name, object["data"] as? [String: Any] ?? [:]))
    return true
  }

  /// Waits until an event has come that nobody has waited for, and takes it.
  @discardableResult func event(_ name: String) throws -> [String: Any] {
    while true {
      if let index = events.firstIndex(where: { $0.name == name }) { return events.remove(at: index).data }
      let object = try object()
      guard note(object) else { throw Trouble("\(object) instead of \(name)") }
    }
  }

  /// Forgets what came.
  func forget() { (history, events) = ([], []) }
}
