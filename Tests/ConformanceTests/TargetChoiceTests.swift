// SPDX-License-Identifier: Apache-2.0
import Conformance
import Testing

@Suite struct TargetChoiceTests {
  @Test(arguments: [
    ("builtin", TargetChoice.builtin), ("socket:/tmp/a b", .socket("/tmp/a b")), ("command:qemu", .command(["qemu"])),
    ("command: qemu  -m\t64 ", .command(["qemu", "-m", "64"])),
    ("command:'a b' \"c 'd'\"e ''", .command(["a b", "c 'd'e", ""])),
  ])
  func targetsAreRead(text: String, expected: TargetChoice) throws {
    #expect(try TargetChoice(parsing: text) == expected)
  }

  @Test(arguments: ["", "built-in", "socket:", "command:", "command:  ", "command:'qemu", "unix:/tmp/x"])
  func otherTargetsAreRefusedInOneLine(text: String) {
    do throws(TargetChoice.Mistake) {
      _ = try TargetChoice(parsing: text)
      Issue.record("it was taken")
    } catch {
      #expect(!error.description.isEmpty && !error.description.contains("\n"))
    }
  }
}
