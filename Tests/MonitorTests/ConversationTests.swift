// SPDX-License-Identifier: Apache-2.0
// The protocol itself (QEMU, docs/interop/qmp-spec): greeting, negotiation, ids, errors, order. Texts as of QEMU 7.2.
import Assembly
import HostSystem
import Machine
import Testing

@testable import Monitor

@Suite struct ConversationTests {
  @Test func theGreetingComesUnasked() throws {
    let kit = try MonitorKit(negotiates: false)
    let greeting: JSONValue = [
      "QMP": [
        "version": ["qemu": ["major": 7, "minor": 2, "micro": 0], "package": "spindle test"], "capabilities": [],
      ]
    ]
    #expect(kit.client.receive() == [greeting])
  }

  @Test func nothingButNegotiationIsTakenFirst() throws {
    let kit = try MonitorKit(negotiates: false)
    _ = kit.client.receive()
    #expect(
      try kit.failure("query-status")
        == "CommandNotFound: Expecting capabilities negotiation with 'qmp_capabilities'")
    #expect(
      try kit.failure("qmp_capabilities", #"{"enable": ["oob"]}"#)
        == "GenericError: Parameter 'enable' does not accept value 'oob'")
    #expect(try kit.failure("qmp_capabilities", #"{"x": 1}"#) == "GenericError: Parameter 'x' is unexpected")
    #expect(
      try kit.failure("qmp_capabilities", #"{"enable": 1}"#)
        == "GenericError: Invalid parameter type for 'enable', expected: array")
    #expect(
      try kit.ask("{'execute':'qmp_capabilities','id':[1,{'a':null}]}") == [["return": [:], "id": [1, ["a": nil]]]])
    #expect(
      try kit.failure("qmp_capabilities")
        == "CommandNotFound: Capabilities negotiation is already complete, command ignored")
    #expect(try kit.value("query-status")["status"] == "running")
  }

  @Test(arguments: [
    (#"{"execute":"nope"}"#, "CommandNotFound", "The command nope has not been found"),
    (#"{"execute":5}"#, "GenericError", "QMP input member 'execute' must be a string"),
    (#"{"execute":"stop","foo":1}"#, "GenericError", "QMP input member 'foo' is unexpected"),
    (#"{"exec-oob":"stop"}"#, "GenericError", "QMP input member 'exec-oob' is unexpected"),
    (#"{"arguments":{}}"#, "GenericError", "QMP input lacks member 'execute'"),
    (#"{"execute":"stop","arguments":[]}"#, "GenericError", "QMP input member 'arguments' must be an object"),
    (#"{"execute":"stop","arguments":{"x":1}}"#, "GenericError", "Parameter 'x' is unexpected"),
    ("[]", "GenericError", "QMP input must be a JSON object"),
    ("5 ", "GenericError", "QMP input must be a JSON object"),
    ("foo ", "GenericError", "JSON parse error, invalid keyword 'foo'"),
    (
      #"{"execute":"block_resize","arguments":{"size":"a"}}"#, "GenericError",
      "Invalid parameter type for 'size', expected: integer"
    ),
    (#"{"execute":"block_resize","arguments":{"device":"d0"}}"#, "GenericError", "Parameter 'size' is missing"),
    (
      #"{"execute":"eject","arguments":{"force":1,"id":"cd0"}}"#, "GenericError",
      "Invalid parameter type for 'force', expected: boolean"
    ),
  ])
  func mistakesAreAnsweredAndTheConversationGoesOn(request: String, kind: String, text: String) throws {
    let kit = try MonitorKit()
    #expect(try kit.ask(request) == [["error": ["class": .string(kind), "desc": .string(text)]]])
    #expect(kit.target.log == [])
    #expect(try kit.value("query-kvm")["present"] == true)
  }

  @Test func anyIdComesBackExactly() throws {
    let kit = try MonitorKit()
    for id in ["18446744073709551615", "-9223372036854775808", "null", #""\u00e9'""#, #"{"a": [1, 0.5]}"#] {
      let reply = try #require(try kit.ask(#"{"execute":"query-name","id":\#(id)}"#).first)
      #expect(reply.jsonText.lowercased() == #"{"return": {}, "id": \#(id)}"#)
    }
    #expect(try kit.ask(#"{"execute":"nope","id":7}"#).first?["id"] == 7)
  }

  @Test func requestsComeInPiecesAndSeveralAtOnce() throws {
    let kit = try MonitorKit()
    #expect(try kit.ask(#"{"execute":"query-name"}{"execute":"query-name","id":2} {"exec"#).count == 2)
    #expect(try kit.ask(#"ute":"query-na"#) == [])
    #expect(try kit.ask(#"me","id":3}"#) == [["return": [:], "id": 3]])
  }

  @Test func aCommandThatTakesTimeIsAnsweredBeforeTheNextBegins() throws {
    let kit = try MonitorKit()
    #expect(try kit.ask(#"{"execute":"system_reset","id":1}{"execute":"stop","id":2}"#) == [])
    #expect(try kit.ask(#"{"execute":"query-name","id":3}"#) == [])
    #expect(kit.target.log == ["reset"])
    kit.target.finishWaiting()
    let replies = try kit.ask(" ")
    #expect(replies.map { $0["event"]?.text ?? $0["id"]?.jsonText } == ["RESET", "1", "STOP", "2", "3"])
    #expect(kit.target.log == ["reset", "stop"])
  }

  @Test func aSecondAnswerIsIgnored() throws {
    let kit = try MonitorKit()
    _ = try kit.execute("block_resize", #"{"device":"d0","size":512}"#)
    let answer = try #require(kit.target.waiting.first)
    kit.target.finishWaiting()
    answer()
    #expect(try kit.ask(" ") == [["return": [:]]])
  }

  @Test func aClientThatDoesNotReadIsNotHeardUntilItDoes() throws {
    let kit = try MonitorKit()
    let request = Array(#"{"execute":"query-commands"}"#.utf8)
    var asked = 0
    // Until neither the monitor nor the socket takes any more.
    while kit.client.send(request) == request.count {
      kit.run()
      asked += 1
      try #require(asked < 100_000, "the monitor reads without end")
    }
    // Events do not pile up either.
    for _ in 0..<100_000 { kit.target.post(.powerdown) }
    var replies = 0
    var events = 0
    while true {
      let values = kit.client.receive()
      if values.isEmpty { break }
      replies += values.count { $0["return"] != nil }
      events += values.count { $0["event"] != nil }
      kit.run()
    }
    #expect(replies >= asked)
    #expect(events < 50_000)
  }

  @Test func aClientThatVanishesInTheMiddleOfACommandHarmsNobody() throws {
    var kit: MonitorKit? = try MonitorKit()
    let target = try #require(kit?.target)
    let monitor = try #require(kit?.monitor)
    let loop = try #require(kit?.loop)
    _ = try kit?.execute("system_reset")
    kit = nil
    target.finishWaiting()
    while loop.runOnce(mayBlock: false) {}
    target.post(.stopped)
    monitor.close()
    #expect(target.log == ["reset"])
  }

  @Test func garbageAndNestingAreAnsweredOneByOne() throws {
    let kit = try MonitorKit()
    let garbage = try kit.ask([0x00, 0xff, 0x7f, 0x0a])
    #expect(garbage.allSatisfy { $0["error"]?["class"] == "GenericError" } && !garbage.isEmpty)
    let deep = try kit.ask(String(repeating: #"{"a":"#, count: 1025) + "\n")
    #expect(deep.first?["error"]?["desc"] == "JSON nesting depth limit exceeded")
    _ = try kit.ask(String(repeating: "}", count: 1025) + "\n")
    #expect(try kit.value("query-name") == [:])
  }

  @Test func aHugeTextIsTaken() throws {
    let kit = try MonitorKit()
    let name = String(repeating: "x", count: 1 << 20)
    #expect(try kit.failure(name) == "CommandNotFound: The command \(name) has not been found")
  }
}

@Suite struct EventTests {
  @Test func clientsHearOfEventsOnceTheyHaveNegotiated() throws {
    let kit = try MonitorKit(negotiates: false)
    kit.target.post(.stopped)
    #expect(try kit.ask(" ").count == 1)
    _ = try kit.execute("qmp_capabilities")
    kit.target.post(.stopped)
    #expect(try kit.ask(" ") == [["timestamp": ["seconds": 7, "microseconds": 9], "event": "STOP"]])
  }

  @Test(
    arguments: [
      (MachineEvent.resumed, "RESUME", nil), (.powerdown, "POWERDOWN", nil),
      (.reset(byGuest: false), "RESET", #"{"guest": false, "reason": "host-qmp-system-reset"}"#),
      (.reset(byGuest: true), "RESET", #"{"guest": true, "reason": "guest-reset"}"#),
      (.shutdown(.powerOff), "SHUTDOWN", #"{"guest": true, "reason": "guest-shutdown"}"#),
      (
        .trayMoved(device: "cd0", isOpen: true), "DEVICE_TRAY_MOVED", #"{"device": "", "id": "cd0", "tray-open": true}"#
      ),
      (.deviceDeleted(device: "v0"), "DEVICE_DELETED", #"{"device": "v0", "path": "/machine/peripheral/v0"}"#),
      (
        .blockError(drive: "d0", isRead: false, action: .stop, code: 28), "BLOCK_IO_ERROR",
        ##"{"device": "d0", "operation": "write", "action": "stop", "nospace": true, "##
          + ##""reason": "No space left on device", "node-name": "#block000"}"##
      ),
    ] as [(MachineEvent, String, String?)])
  func eventsHaveTheirData(event: MachineEvent, name: String, data: String?) throws {
    let kit = try MonitorKit()
    kit.target.post(event)
    let told = try #require(try kit.ask(" ").first)
    #expect(told["event"]?.text == name)
    #expect(told["data"]?.jsonText == data)
  }

  @Test(arguments: [
    (ShutdownReason.signal(15), "host-signal"), (.hostRequest, "host-qmp-quit"), (.guestFault, "guest-panic"),
    (.reset, "guest-reset"), (.hostReset, "host-qmp-system-reset"), (.guestExit(status: 1), "guest-shutdown"),
  ])
  func theEndHasItsReason(reason: ShutdownReason, text: String) throws {
    let kit = try MonitorKit()
    kit.target.post(.shutdown(reason))
    #expect(try kit.ask(" ").first?["data"]?["reason"]?.text == text)
  }

  @Test func eventsComeBeforeTheReturnThatTheyBelongTo() throws {
    let kit = try MonitorKit()
    for (command, arguments, event) in [
      ("blockdev-open-tray", #"{"id":"cd0"}"#, "DEVICE_TRAY_MOVED"),
      ("blockdev-close-tray", #"{"id":"cd0"}"#, "DEVICE_TRAY_MOVED"), ("stop", "{}", "STOP"), ("cont", "{}", "RESUME"),
      ("system_powerdown", "{}", "POWERDOWN"),
    ] {
      let replies = try kit.execute(command, arguments)
      #expect(replies.map { $0["event"]?.text ?? "return" } == [event, "return"])
    }
    for (command, event) in [("system_reset", "RESET"), ("quit", "SHUTDOWN")] {
      _ = try kit.execute(command)
      kit.target.finishWaiting()
      #expect(try kit.ask(" ").map { $0["event"]?.text ?? "return" } == [event, "return"])
    }
  }
}
