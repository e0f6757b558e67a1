// SPDX-License-Identifier: Apache-2.0
// Where clients come from: options, sockets, one client after the other.
import Assembly
import EventLoop
import Glibc
import HostSystem
import Machine
import Testing

@testable import Monitor

/// A path for a socket that nothing has.
private func freshPath() -> String { "/var/tmp/spindle-qmp-\(getpid())-\(UInt32.random(in: 0...UInt32.max))" }

/// A scripted machine on a loop, for monitors that listen.
private final class ServerKit {
  let loop: EventLoop
  let target: ScriptedTarget
  let monitor: Monitor

  init(_ address: MonitorAddress) throws {
    loop = try EventLoop(name: "test")
    target = ScriptedTarget(loop: loop)
    monitor = Monitor(target: target, address: address)
  }

  func run() { while loop.runOnce(mayBlock: false) {} }

  /// What comes back for bytes.
  func ask(_ client: MonitorClient, _ text: String) -> [JSONValue] {
    client.send(text)
    run()
    return client.receive()
  }
}

@Suite struct ChannelTests {
  @Test func clientsAreServedOneAfterTheOther() throws {
    let path = freshPath()
    let kit = try ServerKit(.listenUnix(path: path, waits: false))
    try kit.monitor.start()
    var first: MonitorClient? = try MonitorClient(connectedTo: path)
    kit.run()
    #expect(first?.receive().first?["QMP"] != nil)
    let second = try MonitorClient(connectedTo: path)
    kit.run()
    #expect(second.receive() == [])
    #expect(kit.ask(try #require(first), #"{"execute":"qmp_capabilities"}"#) == [["return": [:]]])
    first = nil
    kit.run()
    // What the first one has negotiated is not the second one's.
    let replies = kit.ask(second, #"{"execute":"query-name"}"#)
    #expect(replies.first?["QMP"] != nil && replies.last?["error"]?["class"] == "CommandNotFound")
    #expect(kit.monitor.clientCount == 2)
    kit.monitor.close()
    #expect(second.read() == [] && second.isAtEnd)
    #expect(access(path, F_OK) != 0)
  }

  @Test func manyClientsComeAndGo() throws {
    let path = freshPath()
    let kit = try ServerKit(.listenUnix(path: path, waits: false))
    try kit.monitor.start()
    let clients = 500
    for _ in 0..<clients {
      let client = try MonitorClient(connectedTo: path)
      #expect(kit.ask(client, "}").count == 2)
    }
    kit.run()
    #expect(kit.monitor.clientCount == clients)
    kit.monitor.close()
  }

  @Test func aLoopbackPortIsFoundAndServed() throws {
    let kit = try ServerKit(.listenLoopback(port: 0, waits: false))
    try kit.monitor.start()
    let port = try #require(kit.monitor.port)
    let client = MonitorClient(try StreamSocket.connect(loopbackPort: port))
    kit.run()
    #expect(client.receive().first?["QMP"] != nil)
    kit.monitor.close()
  }

  @Test func theMachineWaitsForItsClientWhereItIsToldTo() throws {
    let path = freshPath()
    let kit = try ServerKit(.listenUnix(path: path, waits: true))
    try kit.monitor.start()
    #expect(kit.monitor.waitsForClient)
    let client = try MonitorClient(connectedTo: path)
    kit.monitor.waitForClient()
    #expect(kit.monitor.clientCount == 1)
    #expect(client.receive().count == 1)
    kit.monitor.close()
    // A machine that is asked to end does not wait any more.
    let other = try ServerKit(.listenUnix(path: path, waits: true))
    try other.monitor.start()
    other.target.shutdownReason = .signal(15)
    other.monitor.waitForClient()
    #expect(other.monitor.clientCount == 0)
    other.monitor.close()
  }

  @Test func aMonitorConnectsToAProgramThatListens() throws {
    let path = freshPath()
    defer { unlink(path) }
    let listener = try StreamSocket.listen(path: path, backlog: 1)
    let kit = try ServerKit(.connectUnix(path: path))
    try kit.monitor.start()
    guard let accepted = try StreamSocket.accept(listener) else {
      Issue.record("the monitor has not connected")
      return
    }
    let client = MonitorClient(accepted)
    kit.run()
    #expect(client.receive().count == 1)
    kit.monitor.close()
  }

  @Test func socketsThatCannotBeUsedAreNamedInOneLine() throws {
    let path = freshPath()
    #expect { try ServerKit(.connectUnix(path: path)).monitor.start() } throws: {
      "\($0)" == "monitor: \(path): there is no such socket; start the client first, or write server=on"
    }
    try writeWholeFile(path, [1])
    defer { unlink(path) }
    let busy = "monitor: \(path): in use already, or not a socket; choose another address, or remove it"
    #expect { try ServerKit(.listenUnix(path: path, waits: false)).monitor.start() } throws: { "\($0)" == busy }
    #expect(try readWholeFile(path) == [1])
    unlink(path)
    let first = try ServerKit(.listenUnix(path: path, waits: false))
    try first.monitor.start()
    #expect { try ServerKit(.listenUnix(path: path, waits: false)).monitor.start() } throws: { "\($0)" == busy }
  }

  @Test func aSocketThatNobodyListensAtMakesRoom() throws {
    let path = freshPath()
    do { _ = try StreamSocket.listen(path: path, backlog: 1) }
    let kit = try ServerKit(.listenUnix(path: path, waits: false))
    try kit.monitor.start()
    let client = try MonitorClient(connectedTo: path)
    kit.run()
    #expect(client.receive().count == 1)
    kit.monitor.close()
  }

  @Test func whatIsLeftIsWrittenAtTheEnd() throws {
    let kit = try MonitorKit()
    _ = try kit.execute("quit")
    kit.target.finishWaiting()
    kit.monitor.close()
    #expect(kit.client.receive().map { $0["event"]?.text ?? "return" } == ["SHUTDOWN", "return"])
    #expect(kit.client.read() == [] && kit.client.isAtEnd)
  }
}
