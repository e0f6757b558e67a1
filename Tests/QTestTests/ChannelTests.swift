// SPDX-License-Identifier: Apache-2.0
import Assembly
import Glibc
import HostSystem
import Machine
import Platform
import Testing

@testable import Accelerators

/// Two ends of a pipe, which the test closes.
private struct Pipe {
  let readEnd: Int32
  let writeEnd: Int32

  init() {
    var ends: [Int32] = [-1, -1]
    pipe(&ends)
    (readEnd, writeEnd) = (ends[0], ends[1])
  }
}

@Suite(.timeLimit(.minutes(2))) struct ChannelTests {
  @Test func pathThatCannotBeUsedIsOneLine() throws {
    let scratch = try Scratch()
    let path = scratch.path + "/s"
    let absent = #expect(throws: QTestError.self) {
      try QTestChannel(opening: .unix(path: path, isServer: false))
    }
    #expect(absent?.description == "unix:\(path): cannot connect to it: No such file or directory")
    let first = try QTestChannel(opening: .unix(path: path, isServer: true))
    let second = #expect(throws: QTestError.self) { try QTestChannel(opening: .unix(path: path, isServer: true)) }
    #expect(second?.description == "unix:\(path): it exists or is in use; remove it, or choose another one")
    first.close()
    let long = String(repeating: "x", count: 108)
    for isServer in [false, true] {
      let error = #expect(throws: QTestError.self) {
        try QTestChannel(opening: .unix(path: long, isServer: isServer))
      }
      #expect(error?.description.contains("107 bytes") == true)
    }
    // Closing has removed the path.
    try QTestChannel(opening: .unix(path: path, isServer: true)).close()
  }

  @Test func vanishingClientEndsTheMachineInOrder() throws {
    let kit = try QTestKit()
    kit.client.send("writel 0x1000 42\nwritel 0x1004 43\n".utf8)
    kit.client.endSending()
    #expect(kit.client.answer() == "OK")
    #expect(kit.client.answer() == "OK")
    #expect(kit.client.line() == nil)
    #expect(kit.join() == .hostRequest)
    #expect(try kit.machine.memory.load(UInt32.self, at: 0x1004) == 43)
    #expect(kit.machine.runState == .shutdown)
  }

  @Test func clientThatLeavesDuringAResetIsNotWaitedForTwice() throws {
    let kit = try QTestKit(answersAtOnce: false)
    kit.startAHCI()
    kit.prepare(0, command: 0xc8, lba: 3, count: 1, byteCount: 512)
    kit.setHBA(0x138, 1)
    kit.client.send("writel \(QTestKit.abar + 4) 0x80000001\n".utf8)
    try kit.wait { kit.controller.isSettling }
    kit.client.endSending()
    try kit.onLoop { kit.sata.completeAll() }
    #expect(kit.client.answer() == "OK")
    #expect(kit.join() == .hostRequest)
  }

  @Test func listeningServerTakesOneClientAtATimeAndTheNextOneAfterIt() throws {
    let scratch = try Scratch()
    let path = scratch.path + "/s"
    let channel = try QTestChannel(opening: .unix(path: path, isServer: true))
    let kit = try QTestKit(channel: channel, client: try Client(path: path))
    #expect(kit.client.ask("writel 0x1000 7") == "OK")
    var waiting: Client? = try Client(path: path)
    waiting?.send("readl 0x1000\n".utf8)
    #expect(kit.client.ask("endianness") == "OK little")
    #expect(waiting?.hasNews == false)
    kit.client.endSending()
    #expect(waiting?.answer() == "OK 0x0000000000000007")
    waiting = nil
    for _ in 0..<10_000 { _ = try Client(path: path) }
    #expect(try Client(path: path).ask("readl 0x1000") == "OK 0x0000000000000007")
    #expect(kit.finish() == .signal(15))
    #expect(throws: SystemError.self) { _ = try StreamSocket.connect(path: path) }
  }

  @Test func loopbackWorksBothWays() throws {
    let listener = try StreamSocket.listen(loopbackPort: 0)
    let port = try StreamSocket.port(of: listener)
    let channel = try QTestChannel(opening: .loopback(port: port, isServer: false))
    guard let accepted = try StreamSocket.accept(listener) else {
      Issue.record("nobody has connected")
      return
    }
    let kit = try QTestKit(channel: channel, client: Client(taking: accepted))
    #expect(kit.client.ask("endianness") == "OK little")
    kit.finish()
    let server = try StreamSocket.listen(loopbackPort: 0)
    let free = try StreamSocket.port(of: server)
    let error = #expect(throws: QTestError.self) { try QTestChannel(opening: .loopback(port: free, isServer: true)) }
    #expect(error?.description == "tcp:127.0.0.1:\(free): it exists or is in use; remove it, or choose another one")
  }

  @Test func pipesAreDrivenWithoutWaitingForThem() throws {
    let (request, answer) = (Pipe(), Pipe())
    let count = 1 << 20
    let text = "endianness\nread 0 \(count)\nreadl 0\n"
    text.utf8CString.withUnsafeBytes { _ = write(request.writeEnd, $0.baseAddress, $0.count - 1) }
    close(request.writeEnd)
    let channel = QTestChannel(borrowingInput: request.readEnd, output: answer.writeEnd)
    // The pair is only there because the kit has a client.
    let client = try StreamSocket.pair { ours, _ in Client(taking: ours) }
    let kit = try QTestKit(channel: channel, client: client)
    // The pipe is much smaller than the answer, and nobody reads it yet; the loop goes on all the same.
    try kit.wait { kit.server.waitingBytes > 0 }
    let reader = Client(taking: OwnedDescriptor(taking: answer.readEnd))
    #expect(reader.line() == "OK little")
    #expect(reader.line()?.utf8.count == 5 + 2 * count)
    #expect(reader.line() == "OK 0x0000000000000000")
    #expect(kit.join() == .hostRequest)
    close(request.readEnd)
    close(answer.writeEnd)
  }

  @Test func logHasWhatWentOverTheChannel() throws {
    let scratch = try Scratch()
    let path = scratch.path + "/log"
    let kit = try QTestKit(log: try QTestLog(path: path))
    kit.client.ask("endianness")
    kit.client.ask("irq_intercept_in pic")
    kit.client.ask("set_irq_in pic x 4 1")
    kit.client.endSending()
    _ = kit.join()
    let lines = String(decoding: try readWholeFile(path), as: UTF8.self).split(separator: "\n")
    try #require(lines.count == 9)
    #expect(lines[0] == "[I 0.000000] OPENED")
    let texts = lines.map { $0.drop { $0 != "]" }.dropFirst(2) }
    #expect(
      texts == [
        "OPENED", "endianness", "OK little", "irq_intercept_in pic", "OK", "set_irq_in pic x 4 1", "IRQ raise 4", "OK",
        "CLOSED",
      ])
    #expect(lines[1].wholeMatch(of: #/\[R \+\d+\.\d{6}\] endianness/#) != nil)
    #expect(lines[2].wholeMatch(of: #/\[S \+\d+\.\d{6}\] OK little/#) != nil)
    #expect(lines[8].wholeMatch(of: #/\[I \+\d+\.\d{6}\] CLOSED/#) != nil)
    #expect(throws: QTestError.self) { try QTestLog(path: scratch.path + "/no/log") }
  }

  @Test func assembledMachineRunsInTheClientsHands() throws {
    var configuration = MachineConfiguration()
    configuration.memoryBytes = 16 << 20
    configuration.monitor = .auto
    var drive = DriveConfiguration(source: .memory(byteCount: 1 << 20), id: "disk")
    drive.interface = .ahci
    configuration.drives = [drive]
    let assembled = try AssembledMachine(configuration, serial: SerialSink())
    let client = try StreamSocket.pair { ours, theirs in
      assembled.useQTest(channel: QTestChannel(taking: ours))
      return Client(taking: theirs)
    }
    nonisolated(unsafe) let machine = assembled
    let thread = try HostThread(name: "machine") { _ = try? machine.run() }
    client.ask("outw 0x510 3")
    let bytes = (0..<8).map { _ in client.number("inb 0x511") }
    #expect(bytes == [0, 0, 0, 1, 0, 0, 0, 0])
    client.ask("outl 0xcf8 0x8000fa00")
    #expect(client.ask("inl 0xcfc") == "OK 0x29228086")
    client.endSending()
    thread.join()
    #expect(assembled.machine.shutdownReason == .hostRequest)
  }
}
