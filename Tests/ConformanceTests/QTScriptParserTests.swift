// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Conformance

@Suite struct QTScriptExpressionTests {
  @Test(arguments: [
    ("1", 1), ("0x1_0", 16), ("18446744073709551615", UInt64.max), ("2+3*4", 14), ("(2+3)*4", 20), ("1<<4|1", 17),
    ("0xff&0x18>>3", 3), ("10-2-3", 5), ("-1", UInt64.max), ("~0xf&0xff", 0xF0), ("$a+$b_2*2", 0x1004),
    (" 1 +\t1 ", 2), ("0xffffffffffffffff+2", 1), ("1<<64", 0), ("1<<$a", 0), ("((((7))))", 7), ("--5", 5),
  ])
  func valueIsAsInC(text: String, value: UInt64) throws {
    #expect(try Expression(parsing: text).value(["a": 0x1000, "b_2": 2]) == value)
  }

  @Test(arguments: [
    "", " ", "1+", "+1", "(1", "1)", "1 2", "0x", "0xg", "x", "$", "$1", "1__", "_1", "0x_1", "18446744073709551616",
    "0x10000000000000000", "1//2", "1<2", "é", "1 é", "$é", "12a",
  ])
  func otherTextIsRefused(text: String) {
    #expect(throws: Expression.Failure.self) { try Expression(parsing: text) }
  }

  @Test func nestingAndLengthHaveLimits() throws {
    func nested(_ depth: Int) -> String {
      String(repeating: "(", count: depth) + "1" + String(repeating: ")", count: depth)
    }
    #expect(try Expression(parsing: nested(Expression.depthMax - 1)).value([:]) == 1)
    for text in [
      nested(Expression.depthMax), nested(100_000), String(repeating: "~", count: 100_000) + "1",
      String(repeating: "1+", count: Expression.termsMax) + "1",
    ] {
      #expect(throws: Expression.Failure.self) { try Expression(parsing: text) }
    }
  }

  @Test func variableWithoutValueHasNone() {
    #expect(throws: Expression.Failure("$x has no value here")) { try Expression.variable("x").value([:]) }
  }
}

@Suite struct QTScriptParserTests {
  private func parse(_ text: String) throws(QTScriptError) -> QTScript {
    try QTScript(name: "a.qts", Array(text.utf8))
  }

  /// What the parser says of a text that it refuses.
  private func complaint(_ text: String) -> String {
    do {
      _ = try parse(text)
      return "none"
    } catch {
      return error.description
    }
  }

  @Test func directivesDescribeTheScript() throws {
    let script = try parse(
      """
      @title A title  # with a comment
      @section §1
      @differs qemu it does not
      @drive d1 64M pattern werror=report
      @drive d2 512 if=ide
      @machine -device ide-hd,drive=d1
      @machine -m 64
      """)
    #expect((script.title, script.section, script.knownDifference) == ("A title", "§1", "it does not"))
    #expect(
      script.drives == [
        .init(name: "d1", byteCount: 64 << 20, hasPattern: true, keys: ",werror=report"),
        .init(name: "d2", byteCount: 512, hasPattern: false, keys: ",if=ide"),
      ])
    #expect(script.machineWords == ["-device", "ide-hd,drive=d1", "-m", "64"])
    #expect(script.steps.isEmpty)
  }

  @Test func optionWordsHaveDefaultsAndImages() throws {
    let folder = try TemporaryFolder()
    #expect(try parse("").prepare(in: folder) == ["-nodefaults", "-M", "q35", "-m", "128"])
    let script = try parse("@drive d1 1M pattern\n@drive d2 4096 if=ide\n@machine -machine pc --m 64 -drive 'a b'")
    #expect(
      try script.prepare(in: folder) == [
        "-nodefaults", "-drive", "file=\(folder.file("d1")),format=raw,id=d1,if=none", "-drive",
        "file=\(folder.file("d2")),format=raw,id=d2,if=ide", "-machine", "pc", "--m", "64", "-drive", "a b",
      ])
  }

  @Test func whatTheRunnerDecidesIsLeftOutOfPastedCommandLines() throws {
    let script = try parse(
      "@machine build/qemu-system-x86_64 -M q35,accel=qtest,smm=off -accel qtest -qtest stdio -display none -nodefaults \\\n"
        + "@machine --qtest-log /dev/null -enable-kvm -device virtio-blk-pci \\")
    #expect(script.machineWords == ["-M", "q35,smm=off", "-device", "virtio-blk-pci"])
    #expect(try parse("@machine -machine accel=qtest -m 1G").machineWords == ["-m", "1G"])
  }

  @Test(arguments: [
    ("outl 0xcf8", "outl 0xcf8"), ("outl  0xcf8\t0x1  # comment", "outl  0xcf8\t0x1"),
    ("b64write 0 3 AQI=", "b64write 0 3 AQI="),
    ("raedl 0x0 #", "raedl 0x0"), ("write 0x0 0x1 0xff\r", "write 0x0 0x1 0xff"), ("x#y", "x#y"),
  ])
  func plainLinesStandAsTheyAre(line: String, sent: String) throws {
    let script = try parse(line)
    guard case .request(let request, .any) = script.steps[0].action, case .text(let text) = request.pieces[0] else {
      Issue.record("\(script.steps)")
      return
    }
    #expect((text, request.pieces.count) == (sent, 1))
  }

  @Test(arguments: [
    ("@frob", "a.qts:1: @frob is no directive"), ("\n\nreadl $x", "a.qts:3: $x has no value yet; write @set x VALUE"),
    ("@set x $x+1", "$x has no value yet"), ("readl 0 =>", "nothing follows =>"),
    ("x => 1 & 2 & 3", "write parentheses"),
    ("=> 1", "no request before =>"), ("x => \"a", "closing \""), ("read 0 2 => 0x123", "no run of bytes"),
    ("read 0 2 => 0x1234 & 0xff", "the mask has 1 bytes, the value 2"), ("@wait x == 1", "@wait needs one of inb"),
    ("@wait readl 0", "REQUEST == VALUE"), ("@wait readl 0 == 1 within 5", "no length of time"),
    ("@wait readl 0 == 1 within 61s", "up to 60s"), ("@pause 99999999999999999999s", "no length of time"),
    ("@repeat 2\nreadb 0", "a.qts:1: the @repeat has no @end"), ("@end", "no @repeat"),
    ("@repeat", "write @repeat COUNT"),
    ("@set 1x 2", "a variable's name"), ("@set x", "a number is missing"),
    ("@get x write 0 1", "@get NAME needs one of"),
    ("@drive a", "@drive disk0 64M"), ("@drive a/b 64M", "a drive's name"), ("@drive a 100", "no size from 512 to 8T"),
    ("@drive a 99999999T", "no size"), ("@drive a 1M file=x", "no key of -drive"),
    ("@drive a 1M\n@drive a 1M", "already"),
    ("@differs bochs x", "@differs qemu"), ("@expect dead", "@expect alive"), ("@title", "nothing follows @title"),
    ("@machine -M q35 < lines", "a shell's <"), ("@machine 'x", "closing quote"), ("readl ($", "a ) is missing"),
    ("readl $x)", "a ) has no ("), ("a\u{1}b", "no printable text"),
    ("@include /nowhere/x.qts", "/nowhere/x.qts: cannot be read"),
  ])
  func mistakesNameTheLineAndTheWayOut(text: String, part: String) {
    #expect(complaint(text).contains(part), "\(complaint(text))")
    #expect(complaint(text).hasPrefix("a.qts:"))
  }

  @Test func repetitionsMayBeNestedButNotDeep() throws {
    let deep = QTScriptParser.repeatDepthMax
    func nested(_ depth: Int) -> String {
      String(repeating: "@repeat 2 i\n", count: depth) + "readb $i\n" + String(repeating: "@end\n", count: depth)
    }
    #expect(try parse(nested(deep)).steps.count == 1)
    #expect(complaint(nested(deep + 1)).contains("at most \(deep) deep"))
  }

  @Test func randomBytesAreRefusedOrUnderstoodAndNeverTrap() {
    var random = SeededNumbers(seed: 20_26)
    let words = [
      "@machine", "@drive", "@set", "@get", "@wait", "@repeat", "@end", "@include", "@pause", "@title", "@expect",
      "alive",
      "irq", "within", "5s", "=>", "==", "!=", "&", "|", "<<", "(", ")", "$x", "x", "$", "0x", "0xff", "7", "~", "-",
      "*",
      "readl", "read", "write", "any", "OK", "\"", "'", "#", "\n", "\r\n", "\t", "64M", "é", "\u{0}", "1_0", "qemu",
    ]
    var understood = 0
    for round in 0..<4000 {
      var bytes: [UInt8] = []
      if round % 4 == 0 {
        bytes = (0..<(random.next() % 200)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      } else {
        for _ in 0..<(random.next() % 12) {
          bytes += Array(words[Int(random.next() % UInt64(words.count))].utf8)
          if random.next() % 4 != 0 { bytes.append(32) }
        }
      }
      do throws(QTScriptError) {
        _ = try QTScript(name: "r.qts", bytes)
        understood += 1
      } catch {
        #expect(error.description.hasPrefix("r.qts:") && !error.description.contains("\n"))
      }
    }
    // Both happen, so the bytes are neither all nonsense nor all sense.
    #expect(understood > 200 && understood < 3800)
  }
}

@Suite struct QTScriptIncludeTests {
  private static func write(_ folder: TemporaryFolder, _ name: String, _ text: String) throws -> String {
    try writeFile(folder.file(name), text)
    return folder.file(name)
  }

  @Test func includedFilesAreRelativeToTheIncludingOneAndShareVariables() throws {
    let folder = try TemporaryFolder()
    _ = try Self.write(folder, "b.qts", "@set x 5\nreadb $x\n")
    let path = try Self.write(folder, "a.qts", "@include b.qts\n@include b.qts\nwriteb $x 0\n")
    let script = try QTScript(contentsOf: path)
    #expect(script.name == "a.qts")
    #expect(
      script.steps.map { "\($0.place.file):\($0.place.line)" } == [
        "b.qts:1", "b.qts:2", "b.qts:1", "b.qts:2", "a.qts:3",
      ])
  }

  @Test func loopsAreRefused() throws {
    let folder = try TemporaryFolder()
    _ = try Self.write(folder, "b.qts", "\n@include ./a.qts\n")
    let path = try Self.write(folder, "a.qts", "@include b.qts\n")
    let error = #expect(throws: QTScriptError.self) { try QTScript(contentsOf: path) }
    #expect(error?.description.hasPrefix("b.qts:2: ") == true)
    #expect(error?.description.contains("includes itself; leave the @include out") == true)
  }

  @Test func repetitionsEndInTheirOwnFile() throws {
    let folder = try TemporaryFolder()
    _ = try Self.write(folder, "b.qts", "@end\n")
    let path = try Self.write(folder, "a.qts", "@repeat 2\n@include b.qts\n@end\n")
    #expect(throws: QTScriptError.self) { try QTScript(contentsOf: path) }
  }

  @Test func endlessAndMissingFilesAreRefused() {
    for path in ["/dev/zero", "/nowhere", "/"] {
      #expect(throws: QTScriptError.self) { try QTScript(contentsOf: path) }
    }
  }
}
