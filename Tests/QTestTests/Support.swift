// SPDX-License-Identifier: Apache-2.0
// A machine that a qtest client has in its hands, and the client: what the tests of the server share.
import AHCI
import Block
import CLinux
import DeviceTestKit
import EventLoop
import Glibc
import GuestMemory
import HostSystem
import Machine
import Synchronization
import Testing
import VirtioBlock

@testable import Accelerators

/// A test that has to wait fails after so long; nothing is measured by it.
let watchdogMs: Int32 = 60_000

/// The client's end of a connection.
final class Client {
  private let socket: OwnedDescriptor
  private var bytes: [UInt8] = []
  /// Lines that came unasked, oldest first, until a test takes them.
  var interrupts: [String] = []

  init(taking socket: consuming OwnedDescriptor) { self.socket = socket }

  convenience init(path: String) throws { self.init(taking: try StreamSocket.connect(path: path)) }

  /// Sends text as it is, waiting for room.
  func send(_ text: some Collection<UInt8>) {
    var rest = Array(text)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { clinux_write(socket.number, $0.baseAddress!, $0.count) }
      guard count > 0 else { return }
      rest = rest.dropFirst(count)
    }
  }

  /// Nothing more will be sent.
  func endSending() { shutdown(socket.number, Int32(SHUT_WR)) }

  /// Whether something can be read now.
  var hasNews: Bool {
    var state = pollfd(fd: socket.number, events: Int16(POLLIN), revents: 0)
    return !bytes.isEmpty || poll(&state, 1, 0) > 0
  }

  /// The next line, without its end; nil where the connection has ended.
  func line() -> String? {
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    var searched = 0
    while true {
      if let end = bytes[searched...].firstIndex(of: UInt8(ascii: "\n")) {
        defer { bytes.removeFirst(end + 1) }
        return String(decoding: bytes[..<end], as: UTF8.self)
      }
      searched = bytes.count
      var state = pollfd(fd: socket.number, events: Int16(POLLIN), revents: 0)
      guard poll(&state, 1, watchdogMs) > 0 else { return "the watchdog ended the wait" }
      let count = clinux_read(socket.number, &chunk, chunk.count)
      guard count > 0 else { return nil }
      bytes += chunk[..<count]
    }
  }

  /// The next line that answers a request.
  func answer() -> String? {
    while let line = line() {
      if !line.hasPrefix("IRQ ") { return line }
      interrupts.append(line)
    }
    return nil
  }

  /// Sends a request and returns its answer.
  @discardableResult
  func ask(_ request: String) -> String? {
    send((request + "\n").utf8)
    return answer()
  }

  /// Sends a request whose answer is a number.
  func number(_ request: String) -> UInt64 {
    let answer = ask(request) ?? "nothing"
    guard answer.hasPrefix("OK 0x"), let value = UInt64(answer.dropFirst(5), radix: 16) else {
      Issue.record("\(request): \(answer)")
      return 0
    }
    return value
  }

  /// Bytes of memory.
  func bytes(_ address: UInt64, _ count: Int) -> [UInt8] {
    let answer = ask("read \(address) \(count)") ?? ""
    return QTestText.decode(hexadecimal: Array(answer.utf8.dropFirst(3)), byteCountMax: count) ?? []
  }

  /// Writes bytes to memory.
  func write(_ bytes: [UInt8], at address: UInt64) {
    var digits: [UInt8] = []
    QTestText.append(hexadecimal: bytes, to: &digits)
    let answer = ask("write \(address) \(bytes.count) 0x" + String(decoding: digits, as: UTF8.self))
    #expect(answer == "OK")
  }

  /// Writes a dword of a PCI function's configuration through the ports.
  func configure(_ device: UInt32, _ function: UInt32, _ offset: UInt32, _ value: UInt32) {
    ask("outl 0xcf8 \(0x8000_0000 | device << 11 | function << 8 | offset)")
    ask("outl 0xcfc \(value)")
  }
}

/// A machine on a thread of its own, with an AHCI disk on port 0 and a virtio disk in slot 4, and its client.
final class QTestKit {
  static let ramBytes: UInt64 = 8 << 20
  static let abar: UInt64 = 0xe000_0000
  static let virtioBAR: UInt64 = 0xe001_0000
  static let virtioTable: UInt64 = 0xe002_0000

  let machine: Machine
  /// The disk behind AHCI; it answers when told to, or at once.
  let sata: ScriptedDriver
  let virtio: ScriptedDriver
  let controller: AHCIController
  let disk: VirtioBlockDevice
  let server: QTestServer
  let client: Client
  private var thread: HostThread?
  private let reason = Mutex<ShutdownReason?>(nil)
  private var holder: [AnyObject] = []

  /// - Parameters:
  ///   - answersAtOnce: the disks complete what they are given.
  ///   - customise: called before the machine runs.
  convenience init(
    answersAtOnce: Bool = true, log: QTestLog? = nil, customise: (Machine) throws -> Void = { _ in }
  ) throws {
    var ends: [QTestChannel] = []
    let client = try StreamSocket.pair { ours, theirs in
      ends.append(QTestChannel(taking: ours))
      return Client(taking: theirs)
    }
    try self.init(channel: ends[0], client: client, answersAtOnce: answersAtOnce, log: log, customise: customise)
  }

  init(
    channel: QTestChannel, client: Client, answersAtOnce: Bool = true, log: QTestLog? = nil,
    customise: (Machine) throws -> Void = { _ in }
  ) throws {
    let memory = GuestMemory()
    try memory.add(GuestRegion(start: 0, byteCount: Self.ramBytes))
    let loop = try EventLoop(name: "test")
    machine = Machine(memory: memory, mainLoop: loop)
    machine.resetPolicy = .resetDevices
    sata = answersAtOnce ? PromptDriver(loop: loop) : ScriptedDriver()
    virtio = answersAtOnce ? PromptDriver(loop: loop) : ScriptedDriver()
    let sataBackend = BlockBackend(driver: sata, loop: loop, configuration: BlockConfiguration())
    let virtioBackend = BlockBackend(driver: virtio, loop: loop, configuration: BlockConfiguration())
    holder = [sataBackend, virtioBackend]
    controller = AHCIController(name: "ahci", memory: memory, loop: loop)
    controller.connect(ATADrive(backend: sataBackend), to: 0)
    disk = try VirtioBlockDevice(
      name: "disk", address: PCIAddress(device: 4, function: 0), backend: virtioBackend, memory: memory)
    server = QTestServer(machine: machine, channel: channel, log: log)
    self.client = client
    machine.attach(controller)
    machine.attach(disk)
    machine.add(server)
    try customise(machine)
    nonisolated(unsafe) let running = self
    thread = try HostThread(name: "machine") {
      let ended = try? running.machine.run()
      running.reason.withLock { $0 = ended }
    }
  }

  /// Runs `body` on the main loop, and waits for it.
  func onLoop<T>(_ body: @escaping () -> T) throws -> T {
    let done = try EventDescriptor()
    nonisolated(unsafe) var result: T?
    nonisolated(unsafe) let body = body
    machine.mainLoop.execute {
      result = body()
      done.signal()
    }
    var state = pollfd(fd: done.number, events: Int16(POLLIN), revents: 0)
    try #require(poll(&state, 1, watchdogMs) > 0, "the loop never came to it")
    return try #require(result)
  }

  /// Waits until `condition` holds on the main loop.
  func wait(until condition: @escaping () -> Bool) throws {
    let start = HostClock.nanoseconds
    while !(try onLoop(condition)) {
      try #require(HostClock.nanoseconds - start < UInt64(watchdogMs) * 1_000_000, "the watchdog ended the wait")
    }
  }

  /// Ends the machine where it runs, and returns why it has ended.
  @discardableResult
  func finish() -> ShutdownReason? {
    try? onLoop { [sata, virtio] in
      sata.completeAll()
      virtio.completeAll()
    }
    machine.requestShutdown(.signal(15))
    return join()
  }

  /// Waits until the machine has ended by itself.
  func join() -> ShutdownReason? {
    thread?.join()
    thread = nil
    return reason.withLock { $0 }
  }

  // MARK: AHCI as a client drives it

  static let list: UInt64 = 0x10_0000
  static let received: UInt64 = 0x10_1000
  static let data: UInt64 = 0x20_0000

  static func table(_ slot: Int) -> UInt64 { 0x11_0000 + UInt64(slot) * 0x1000 }

  func hba(_ offset: UInt64) -> UInt32 { UInt32(client.number("readl \(Self.abar + offset)")) }
  func setHBA(_ offset: UInt64, _ value: UInt32) {
    #expect(client.ask("writel \(Self.abar + offset) \(value)") == "OK")
  }

  /// Gives the controller its address and starts port 0.
  func startAHCI() {
    client.configure(0x1f, 2, 0x24, UInt32(Self.abar))
    client.configure(0x1f, 2, 4, 7)
    startPort()
  }

  func startPort() {
    setHBA(4, 0x8000_0002)
    setHBA(0x100, UInt32(Self.list))
    setHBA(0x108, UInt32(Self.received))
    setHBA(0x118, 0x10)
    setHBA(0x118, 0x11)
    setHBA(0x130, .max)
    setHBA(0x110, .max)
    setHBA(8, .max)
    setHBA(0x114, .max)
  }

  /// Writes a command with one region into a slot.
  func prepare(
    _ slot: Int, command: UInt8, features: UInt16 = 0, lba: UInt32 = 0, count: UInt16 = 0, byteCount: UInt32,
    at data: UInt64 = QTestKit.data
  ) {
    let fis: [UInt8] = [
      0x27, 0x80, command, UInt8(features & 0xff), UInt8(lba & 0xff), UInt8(lba >> 8 & 0xff), UInt8(lba >> 16 & 0xff),
      0x40, 0, 0, 0, UInt8(features >> 8), UInt8(count & 0xff), UInt8(count >> 8), 0, 0, 0, 0, 0, 0,
    ]
    client.write(fis, at: Self.table(slot))
    client.ask("writeq \(Self.table(slot) + 0x80) \(data)")
    client.ask("writeq \(Self.table(slot) + 0x88) \(UInt64(byteCount - 1) << 32)")
    client.ask("writeq \(Self.list + UInt64(slot) * 32) \(5 | 1 << 16)")
    client.ask("writeq \(Self.list + UInt64(slot) * 32 + 8) \(Self.table(slot))")
  }

  /// Issues slots and polls until they are done.
  func run(_ slots: UInt32, queued: Bool = false) throws {
    if queued { setHBA(0x134, slots) }
    setHBA(0x138, slots)
    try pollUntil { self.hba(0x138) | self.hba(0x134) == 0 }
  }

  func pollUntil(_ isDone: () -> Bool) throws {
    let start = HostClock.nanoseconds
    while !isDone() {
      try #require(HostClock.nanoseconds - start < UInt64(watchdogMs) * 1_000_000, "the watchdog ended the wait")
    }
  }

  // MARK: virtio as a client drives it

  static let rings: UInt64 = 0x30_0000
  static let request: UInt64 = 0x31_0000

  /// Brings the virtio disk up, with one queue of 16 entries.
  func startVirtio(vector: UInt16 = 0xffff) {
    client.configure(4, 0, 0x20, UInt32(Self.virtioBAR))
    client.configure(4, 0, 0x24, 0)
    client.configure(4, 0, 0x14, UInt32(Self.virtioTable))
    client.configure(4, 0, 4, 6)
    for status in [0, 1, 3] { client.ask("writeb \(Self.virtioBAR + 20) \(status)") }
    client.ask("writel \(Self.virtioBAR + 8) 1")
    client.ask("writel \(Self.virtioBAR + 12) 1")
    client.ask("writeb \(Self.virtioBAR + 20) 0xb")
    client.ask("writew \(Self.virtioBAR + 24) 16")
    client.ask("writew \(Self.virtioBAR + 26) \(vector)")
    for (register, offset) in [(32, 0), (40, 0x1000), (48, 0x2000)] as [(UInt64, UInt64)] {
      client.ask("writeq \(Self.virtioBAR + register) \(Self.rings + offset)")
    }
    client.ask("writew \(Self.virtioBAR + 28) 1")
    client.ask("writeb \(Self.virtioBAR + 20) 0xf")
  }

  var virtioStatus: UInt64 { client.number("readb \(Self.virtioBAR + 20)") }
  var usedIndex: UInt64 { client.number("readw \(Self.rings + 0x2002)") }

  /// Offers a read of one sector and rings the doorbell.
  func readSector(_ sector: UInt64) {
    client.ask("writeq \(Self.request) 0")
    client.ask("writeq \(Self.request + 8) \(sector)")
    let descriptors: [(UInt64, UInt64)] = [
      (Self.request, 16 | 1 << 32 | 1 << 48), (Self.data, 512 | 3 << 32 | 2 << 48), (Self.request + 16, 1 | 2 << 32),
    ]
    for (index, descriptor) in descriptors.enumerated() {
      client.ask("writeq \(Self.rings + UInt64(index) * 16) \(descriptor.0)")
      client.ask("writeq \(Self.rings + UInt64(index) * 16 + 8) \(descriptor.1)")
    }
    client.ask("writew \(Self.rings + 0x1004) 0")
    client.ask("writew \(Self.rings + 0x1002) 1")
    client.ask("writew \(Self.virtioBAR + 0x3000) 0")
  }
}

/// A disk that answers in the loop's next round.
private final class PromptDriver: ScriptedDriver {
  private let loop: EventLoop

  init(loop: EventLoop) {
    self.loop = loop
    super.init()
  }

  override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    super.submit(request)
    nonisolated(unsafe) let disk = self
    loop.execute { disk.completeAll() }
  }
}

/// A directory of a test's own.
final class Scratch {
  let path: String

  init() throws {
    var template = Array("/tmp/qtest-XXXXXX".utf8CString)
    path = try #require(mkdtemp(&template).map { String(cString: $0) })
  }

  deinit {
    for name in ["s", "log"] { unlink(path + "/" + name) }
    rmdir(path)
  }
}
