// SPDX-License-Identifier: Apache-2.0
// How words, keys and endpoints are read.
import Assembly
import Monitor
import Testing

@testable import QEMUCommandLine

@Suite struct WordsTests {
  @Test func anAccentAtTheFrontOfANameBelongsToTheName() throws {
    // It makes one character with the sign before it, which parts all the same.
    let list = try KeyValueList("file=\u{301}a,,\u{301}b,\u{301}c=d", option: "-drive")
    #expect(list["file"] == "\u{301}a,\u{301}b" && list["\u{301}c"] == "d")
    let plan = try QEMUPlan(["-drive", "if=none,id=d,file=\u{301}a,,\u{301}b"])
    #expect(plan.spares[0].source == .file(path: "\u{301}a,\u{301}b"))
  }

  @Test func optionsKeepTheirOrderAndTakeOneOrTwoDashes() throws {
    let words = try OptionWords(["-M", "q35", "--nodefaults", "-m", "384", "disk.img"])
    #expect(
      words.options == [
        .init(name: "machine", value: "q35"), .init(name: "nodefaults", value: ""), .init(name: "m", value: "384"),
        .init(name: "hda", value: "disk.img"),
      ])
    #expect(words.last("m") == "384")
    #expect(words.has("nodefaults") && !words.has("S"))
  }

  @Test func unknownOptionAndMissingValueAreNamed() {
    #expect(throws: UsageError("-warp: unknown option; see --help for those that there are")) {
      try OptionWords(["-warp"])
    }
    #expect(throws: UsageError("-drive: needs a value after it")) { try OptionWords(["-S", "-drive"]) }
  }

  @Test func keysAndValuesAreTakenApart() throws {
    var list = try KeyValueList("file=a,,b.img,snapshot,nowait,id=x", option: "-drive")
    #expect(list.take("file") == "a,b.img")
    #expect(try list.takeFlag("snapshot", default: false))
    #expect(try !list.takeFlag("wait", default: true))
    #expect(throws: UsageError("-drive: unknown key 'id' (id=x)")) { try list.finish() }
    #expect(list.take("id") == "x")
    try list.finish()
  }

  @Test func firstPartMayHaveNoKey() throws {
    #expect(try KeyValueList("ide-hd,drive=d", option: "-device", implied: "driver")["driver"] == "ide-hd")
    #expect(try KeyValueList("driver=ide-hd,drive=d", option: "-device", implied: "driver")["driver"] == "ide-hd")
  }

  @Test func jsonObjectsAreReadAsDottedKeys() throws {
    let text = #"{"driver": "raw", "file": {"driver": "file", "filename": "a.img"}, "read-only": true, "n": 3}"#
    let list = try KeyValueList(text, option: "-blockdev")
    #expect(list["file.filename"] == "a.img")
    #expect(list["read-only"] == "on")
    #expect(list["n"] == "3")
    #expect(throws: UsageError("-blockdev: '{broken' is not a JSON object")) {
      try KeyValueList("{broken", option: "-blockdev")
    }
  }

  @Test(arguments: [("0x40", 64), ("010", 8), ("12", 12), ("0", 0), ("0X1f", 31)])
  func numbersAreReadAsCDoes(_ row: (text: String, number: Int)) {
    #expect(CNumber.parse(row.text) == row.number)
  }

  @Test(arguments: ["", "0x", "1g", "09"])
  func whatIsNoNumberIsNone(_ text: String) { #expect(CNumber.parse(text) == nil) }
}

@Suite struct EndpointTests {
  @Test(arguments: [
    ("unix:/a/b c", Endpoint.unix(path: "/a/b c", listens: false, waits: true)),
    ("unix:/a,,b", .unix(path: "/a,b", listens: false, waits: true)),
    ("unix:/a,server=on", .unix(path: "/a", listens: true, waits: true)),
    ("unix:/a,server=on,wait=off", .unix(path: "/a", listens: true, waits: false)),
    ("unix:/a,server,nowait", .unix(path: "/a", listens: true, waits: false)),
    ("tcp:127.0.0.1:4444", .loopback(port: 4444, listens: false, waits: true)),
    ("tcp:localhost:0,server=on,wait=off", .loopback(port: 0, listens: true, waits: false)),
    ("tcp::65535,server", .loopback(port: 65535, listens: true, waits: true)), ("stdio", .stdio),
    ("fd:7", .descriptor(7)), ("file:/tmp/f", .file(path: "/tmp/f")), ("null", .null), ("none", .null),
  ])
  func shortFormsAreRead(_ row: (text: String, endpoint: Endpoint)) throws {
    #expect(try Endpoint(row.text, option: "-qmp") == row.endpoint)
  }

  @Test(arguments: [
    "", "zz", "unix", "unix:", "unix:/a,server=maybe", "unix:/a,zz=on", "tcp:80", "tcp:127.0.0.1", "tcp:10.0.0.1:5",
    "tcp:0.0.0.0:80", "tcp:127.0.0.1:x", "tcp:127.0.0.1:0", "tcp:127.0.0.1:65536", "fd:-1", "fd:", "udp:1", ",,,",
    "stdio:1", "file:", "unix:/" + String(repeating: "x", count: 107),
  ])
  func mistakesAreOneLineThatNamesTheOption(_ text: String) {
    #expect { try Endpoint(text, option: "-qmp") } throws: {
      "\($0)".hasPrefix("-qmp") && !"\($0)".contains("\n")
    }
  }

  @Test func characterDevicesAreRead() throws {
    func read(_ text: String) throws -> Endpoint { try Endpoint.chardev(text + ",id=c").endpoint }
    #expect(try Endpoint.chardev("socket,path=/q,id=char0").id == "char0")
    #expect(try read("socket,path=/q") == .unix(path: "/q", listens: false, waits: true))
    #expect(try read("socket,path=/q,server=on,wait=off") == .unix(path: "/q", listens: true, waits: false))
    #expect(try read("socket,host=127.0.0.1,port=5,server") == .loopback(port: 5, listens: true, waits: true))
    #expect(try read("socket,fd=9") == .descriptor(9))
    #expect(try read("stdio") == .stdio)
    for text in ["pipe,path=/q", "socket,server=on", "socket,fd=x", "socket,host=10.0.0.1,port=5", "socket,path="] {
      #expect(throws: UsageError.self) { try read(text) }
    }
    #expect(throws: UsageError.self) { try Endpoint.chardev("socket,path=/q") }
  }

  @Test func monitorsHaveClientsAtSocketsAndOnTheTerminal() throws {
    func address(_ text: String) throws -> MonitorAddress {
      try Endpoint(text, option: "-qmp").monitorAddress(option: "-qmp")
    }
    #expect(try address("unix:/a") == .connectUnix(path: "/a"))
    #expect(try address("unix:/a,server,nowait") == .listenUnix(path: "/a", waits: false))
    #expect(try address("tcp:127.0.0.1:5") == .connectLoopback(port: 5))
    #expect(try address("tcp:127.0.0.1:5,server") == .listenLoopback(port: 5, waits: true))
    #expect(try address("stdio") == .standardIO)
    #expect(try address("fd:7") == .descriptor(7))
    #expect(throws: UsageError("-qmp null: a monitor's client speaks over a socket or stdio")) { try address("null") }
  }
}
