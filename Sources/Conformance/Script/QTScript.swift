// SPDX-License-Identifier: Apache-2.0
// Scripts of qtest lines (`.qts`): a reproducer is pasted, kept, and judged like a case of the suites.
//
// A line is one of
//
//     # a comment; also after a blank on any line
//     outl 0xcf8 0x8000fa24                      a request of the qtest protocol, sent as it stands; any reply will do
//     readl $bar+0x10 => 0x0000_0101             the reply's number must be this
//     inl 0xcfc => 0x2922 & 0xffff               … in the bits of a mask
//     read 0x1000 4 => 0x01020304                `read`: its bytes in the order of memory; a mask has as many
//     endianness => "OK little"                  the whole reply
//     outb 0xcf8 => FAIL                         also OK (whatever follows it), and `any`, which says it aloud
//
// or a directive:
//
//     @title A sentence that states the behaviour
//     @section AHCI 1.3.1 §10.4.3                where it is laid down
//     @machine -M q35 -device ich9-ahci,id=x     QEMU's option words; several lines add up. `-M q35 -m 128` where they
//                                                are not given. What runs the machine (`-qtest`, `-accel`) is left out,
//                                                so that a published command line can be pasted
//     @drive disk0 64M pattern werror=report     a scratch image, and a `-drive` with this id for a `-device` to name;
//                                                `pattern`: its first MiB is not zeroes. Further words: keys of -drive
//     @differs qemu REASON                       QEMU is known to fail this script
//     @set bar 0xe0000000                        a variable; 64 bits, arithmetic wraps
//     @get status readl $bar+0x128               the same, from a reply
//     @wait readl $bar+0x138 == 0 & 1 within 5s  asks until it is so (or `!=`); 10 s where no time is given
//     @wait irq 10                               until an intercepted line was raised since it was last waited for
//     @pause 20ms                                lets the machine alone
//     @repeat 32 slot … @end                     the lines between, with $slot = 0, 1, …; the name may be left out
//     @include FILE                              relative to the folder of the file that says so
//     @expect alive                              the machine answers; every script ends with that
//
// A number is decimal, or hexadecimal behind 0x, with _ between digits. An expression has numbers, $names, parentheses
// and C's operators ~ - * + - << >> & |. On a request's line a word is an expression where it has a $ or a parenthesis
// (blanks are allowed inside those) or is a number with _; every other word is sent as it stands. While it
// waits, a script steps a clock that only moves when told by the time that passes on the host.

/// A script that was read and found well-formed. A value; any thread may use it.
public struct QTScript: Sendable {
  /// The file's name, without folders.
  public internal(set) var name: String
  /// The behaviour, as a sentence.
  public internal(set) var title = "Every line gets a reply, and the machine stays alive"
  /// Where the behaviour is laid down.
  public internal(set) var section = "script"
  /// Why QEMU is known to fail it; nil where it is not.
  public internal(set) var knownDifference: String?
  /// The option words of `@machine`, in order.
  public internal(set) var machineWords: [String] = []
  var drives: [Drive] = []
  var steps: [Step] = []

  /// A scratch image and the keys of its `-drive`.
  struct Drive: Equatable, Sendable {
    var name: String
    var byteCount: UInt64
    var hasPattern: Bool
    var keys: String
  }

  /// A line of a file, for messages.
  struct Place: Sendable {
    var file: String
    var line: Int
    var text: String

    /// How much of a line a message shows.
    private static let shownCharactersMax = 120

    /// The line as messages show it.
    var shown: String {
      text.count > Self.shownCharactersMax ? "\(text.prefix(Self.shownCharactersMax))…" : text
    }
  }

  /// A qtest request whose numbers may depend on variables.
  struct Request: Sendable {
    enum Piece: Sendable {
      case text(String)
      case number(Expression)
    }
    var verb: String
    var pieces: [Piece]
  }

  /// What a reply must be.
  enum Expectation: Sendable {
    case any
    case good
    case refused
    case text(String)
    case number(Expression, mask: Expression?)
    case bytes([UInt8], mask: [UInt8]?)
  }

  /// What the machine is asked until it is so.
  struct Condition: Sendable {
    var request: Request
    var isEquality: Bool
    var value: Expression
    var mask: Expression?
  }

  /// One thing that a script does.
  struct Step: Sendable {
    indirect enum Action: Sendable {
      case request(Request, Expectation)
      case set(String, Expression)
      case get(String, Request)
      case waitForInterrupt(Expression, nanoseconds: UInt64)
      case wait(Condition, nanoseconds: UInt64)
      case pause(nanoseconds: UInt64)
      case repetition(Expression, counter: String?, [Step])
      case expectAlive
    }
    var place: Place
    var action: Action
  }
}

/// A script that cannot be read or understood: a mistake of its author's.
public struct QTScriptError: Error, Equatable, Sendable, CustomStringConvertible {
  /// One line: file and line, what is wrong and the way out, and the line's text.
  public var description: String

  init(_ place: QTScript.Place, _ reason: String) {
    description = "\(place.file):\(place.line): \(reason): \(place.shown)"
  }

  init(file: String, _ reason: String) {
    description = "\(file): \(reason)"
  }
}
