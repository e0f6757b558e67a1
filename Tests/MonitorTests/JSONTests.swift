// SPDX-License-Identifier: Apache-2.0
// JSON as QEMU's monitor takes it. The error texts were seen on QEMU 7.2.
import Testing

@testable import Monitor

/// What a parser makes of text that comes in pieces of a length: values as text, errors with a mark.
private func parse(_ bytes: [UInt8], piece: Int = .max, _ parser: JSONParser = JSONParser()) -> [String] {
  var parser = parser
  var results: [String] = []
  var rest = bytes[...]
  while !rest.isEmpty {
    var input = rest.prefix(piece)
    rest = rest.dropFirst(piece)
    while let result = parser.next(&input) {
      switch result {
      case .success(let value): results.append(value.jsonText)
      case .failure(let error): results.append("! \(error.description)")
      }
    }
  }
  return results
}

private func parse(_ text: String, piece: Int = .max) -> [String] { parse(Array(text.utf8), piece: piece) }

@Suite struct JSONTests {
  @Test(arguments: [
    ("{}", "{}"), ("[]", "[]"), ("null ", "null"), (#"{"a":1,"b":[true,false]}"#, #"{"a": 1, "b": [true, false]}"#),
    ("{'a':'b\"'}", #"{"a": "b\""}"#), (#"'it\'s'"#, #""it's""#), ("18446744073709551615\n", "18446744073709551615"),
    ("-9223372036854775808\n", "-9223372036854775808"), ("9223372036854775807\n", "9223372036854775807"),
    ("1e3\n", "1000"), ("0.1\n", "0.1"), ("-0.5E-1\n", "-0.05"), ("99999999999999999999\n", "1e+20"),
    // Numbers at the ends of what 64 bits hold.
    ("-9223372036854775809\n", "-9.223372036854776e+18"), ("-9223372036854775808.0\n", "-9.223372036854776e+18"),
    ("9223372036854775808.0\n", "9.223372036854776e+18"), ("9007199254740991.0\n", "9007199254740991"),
    (#""\u00e9\ud83d\ude00\t\/""#, #""\u00E9\uD83D\uDE00\t/""#), ("\"é\u{7f}\"", #""\u00E9\u007F""#),
  ])
  func valuesComeBackAsTheyWent(text: String, expected: String) {
    #expect(parse(text) == [expected])
  }

  @Test(arguments: [
    ("foo\n", "invalid keyword 'foo'"), (#"{"execute":tru}"#, "invalid keyword 'tru'"),
    ("{execute:1}", "invalid keyword 'execute'"), (#"{"a" 1}"#, "missing : in object pair"),
    (#"{"a":1 "b":2}"#, "expected separator in dict"), (#"{"a":1,"a":2}"#, "duplicate key"),
    ("[1 2]", "expected separator in list"), ("}", "expecting value"), ("]", "expecting value"),
    ("[}", "expecting value"), (#"{"a":1,}"#, "expecting value"), ("{1:2}", "key is not a string in object"),
    (#"{"a":"\x"}"#, "invalid escape sequence in string"),
    (#"{"a":"\ud800"}"#, #"\ud800 is not a valid Unicode character"#),
    (#"{"a":"\u12"}"#, #"\u12 is not a valid Unicode character"#),
    (#"["\u0000"]"#, #"\u0000 is not a valid Unicode character"#), ("1e999\n", "number '1e999' is out of range"),
    ("-}", "stray '-}'"), ("\u{1}", "stray '\u{1}'"), ("X\n", "stray 'X'"),
  ])
  func mistakesAreNamed(text: String, expected: String) {
    #expect(parse(text) == ["! JSON parse error, \(expected)"])
  }

  @Test func aMistakeIsReportedOnceAndTheNextValueIsRead() {
    #expect(
      parse(#"{"a":tru,"b":[1 2 3],"c":{}} {"d":1}"#) == ["! JSON parse error, invalid keyword 'tru'", #"{"d": 1}"#])
    // A number that goes on wrongly swallows what follows up to the structure.
    let leading = parse(#"{"id":01} {}"#)
    #expect(leading == ["! JSON parse error, stray '01'", "! JSON parse error, expecting value", "{}"])
    let controls = parse("foo\u{1}bar{}")
    #expect(controls == ["! JSON parse error, invalid keyword 'foo'", "! JSON parse error, stray '\u{1}'", "{}"])
  }

  @Test func bytesThatAreNoUTF8AreRefused() {
    #expect(parse([0x22, 0xc3, 0x22]) == ["! JSON parse error, invalid UTF-8 sequence in string"])
    #expect(parse([0x22, 0xff, 0x0a, 0x7b, 0x7d]) == ["! JSON parse error, stray '\"\u{fffd}'", "{}"])
  }

  @Test func pieceLengthsDoNotMatter() {
    let text = #" {"execute":"x",'id':[-1.5e+3,{"ü":"\ud83d\ude00"}]}[tru]{"a"}nul 12 "#
    let whole = parse(text)
    #expect(whole.count == 5)
    for piece in 1...20 { #expect(parse(text, piece: piece) == whole) }
  }

  @Test func nestingEndsAtItsLimit() {
    let deep = JSONLimits.depthMax
    let fits = String(repeating: "[", count: deep) + String(repeating: "]", count: deep)
    #expect(parse(fits) == [fits])
    let results = parse("[" + fits)
    #expect(results.first == "! JSON nesting depth limit exceeded")
    #expect(results.dropFirst().allSatisfy { $0 == "! JSON parse error, expecting value" })
  }

  @Test func longValuesEndAtTheirLimits() {
    let small = JSONParser(tokenBytesMax: 16, tokensMax: 8)
    #expect(parse(Array(#""0123456789abcd""#.utf8), small) == [#""0123456789abcd""#])
    let long = #""0123456789abcdefghijklmnop" {}"#
    for piece in [1, 3, 100] {
      let results = parse(Array(long.utf8), piece: piece, small)
      #expect(results.first == "! JSON token size limit exceeded")
      #expect(results.last == "{}")
    }
    #expect(parse(Array("[1,2,3,4,5]".utf8), small).first == "! JSON token count limit exceeded")
    #expect(parse(Array(#"["01234567","89abcdef"]"#.utf8), small).first == "! JSON token size limit exceeded")
  }

  @Test func anythingAtAllIsSurvived() {
    var generator = SplitMix(state: 0x5eed)
    let alphabet = Array(##"{}[]:,"'\u0019afe-+.tnl "##.utf8) + [0x01, 0x0a, 0xc3, 0xff]
    for _ in 0..<3000 {
      let bytes = (0..<Int.random(in: 1...60, using: &generator)).map { _ in
        let isLikely = UInt8.random(in: 0...3, using: &generator) > 0
        return isLikely ? alphabet.randomElement(using: &generator)! : UInt8.random(in: 0...255, using: &generator)
      }
      #expect(parse(bytes) == parse(bytes, piece: 1))
    }
  }

  @Test func whatIsWrittenIsReadAgain() {
    let value: JSONValue = [
      "text": "q\" \\ \u{8}\u{c}\n\r\t\u{1} é \u{1F600}", "list": [1, -2, nil, true, [:]], "big": .unsigned(.max),
      "real": .number(1.0 / 3),
    ]
    var parser = JSONParser()
    var input = value.jsonBytes[...]
    #expect(value.jsonBytes.allSatisfy { (0x20...0x7e).contains($0) })
    #expect(parser.next(&input) == .success(value))
  }
}

/// SplitMix64, so that a failing case comes again.
private struct SplitMix: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
