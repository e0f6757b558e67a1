// SPDX-License-Identifier: Apache-2.0
// How words, keys and endpoints are read.
import Assembly
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

  @Test func endpointsAreReadInBothForms() throws {
    #expect(try Endpoint("unix:/tmp/s", option: "-qtest") == .unix(path: "/tmp/s", listens: false, waits: true))
    #expect(
      try Endpoint("unix:/tmp/s,server=on,wait=off", option: "-qmp")
        == .unix(path: "/tmp/s", listens: true, waits: false))
    #expect(
      try Endpoint("tcp::4444,server,nowait", option: "-qmp")
        == .tcp(host: "127.0.0.1", port: 4444, listens: true, waits: false))
    #expect(try Endpoint("stdio", option: "-qtest") == .stdio)
    let (id, endpoint) = try Endpoint.chardev("socket,path=/tmp/q,id=char0")
    #expect(id == "char0" && endpoint == .unix(path: "/tmp/q", listens: false, waits: true))
    #expect(try Endpoint.chardev("socket,id=c,fd=7").endpoint == .descriptor(7))
    #expect(throws: UsageError.self) { try Endpoint("carrier:pigeon", option: "-qtest") }
    #expect(throws: UsageError.self) { try Endpoint.chardev("socket,path=/tmp/q") }
    #expect(throws: UsageError.self) { try Endpoint.chardev("pigeon,id=c") }
  }
}
