// SPDX-License-Identifier: Apache-2.0

/// A target as a user writes it.
public enum TargetChoice: Equatable, Sendable {
  /// `builtin`: a machine of the process itself.
  case builtin
  /// `command:WORDS`: a program and its first arguments.
  case command([String])
  /// `socket:PATH`: a machine that runs already.
  case socket(String)

  /// What is wrong with a text, and the way out.
  public struct Mistake: Error, Equatable, CustomStringConvertible, Sendable {
    /// One line for people.
    public var description: String
  }

  /// Reads a target. The words of a command are divided by blanks, but not between quotes of either kind.
  public init(parsing text: String) throws(Mistake) {
    if text == "builtin" {
      self = .builtin
    } else if text.hasPrefix("socket:") {
      let path = text.dropFirst("socket:".count)
      guard !path.isEmpty else { throw Mistake(description: "names no path; write socket:PATH") }
      self = .socket(String(path))
    } else if text.hasPrefix("command:") {
      let words = try Self.words(of: text.dropFirst("command:".count))
      guard !words.isEmpty else { throw Mistake(description: "names no program; write command:qemu-system-x86_64") }
      self = .command(words)
    } else {
      throw Mistake(description: "unknown; choose builtin, command:'PROGRAM ARGUMENT …' or socket:PATH")
    }
  }

  /// The kind in one word.
  public var word: String {
    switch self {
    case .builtin: "builtin"
    case .command: "command"
    case .socket: "socket"
    }
  }

  private static func words(of text: Substring) throws(Mistake) -> [String] {
    var words: [String] = []
    var word: String?
    var quote: Character?
    for character in text {
      if let open = quote {
        if character == open { quote = nil } else { word = (word ?? "") + String(character) }
      } else if character == "\"" || character == "'" {
        quote = character
        word = word ?? ""
      } else if character == " " || character == "\t" {
        if let whole = word { words.append(whole) }
        word = nil
      } else {
        word = (word ?? "") + String(character)
      }
    }
    guard quote == nil else { throw Mistake(description: "a quote is not closed") }
    if let whole = word { words.append(whole) }
    return words
  }
}
