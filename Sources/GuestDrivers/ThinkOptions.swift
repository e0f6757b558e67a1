// SPDX-License-Identifier: Apache-2.0

/// What the words of the command line ask of the thinking load.
public struct ThinkOptions: Equatable, Sendable {
  /// What the load reads from.
  public enum Device: Sendable {
    /// The first SATA disk of the first AHCI controller.
    case ahci
    /// The first virtio-blk disk.
    case virtio
    /// Nothing: the thoughts alone.
    case none
  }

  /// Most nanoseconds of one thought: a minute.
  public static let thinkNsMax: UInt64 = 60_000_000_000
  /// Most bytes of one request, and requests of a batch: what an AHCI port takes at once, in buffers of 32 MiB.
  public static let requestBytesMax: UInt64 = 1 << 20
  /// See `requestBytesMax`.
  public static let batchCountMax: UInt64 = 32
  /// Most bytes that are read in all.
  public static let totalBytesMax: UInt64 = 1 << 40

  /// `device=ahci|virtio|none`.
  public var device = Device.ahci
  /// `bytes=N`, `request=N` (bytes), `batch=N` (requests), `batch-think=N` and `completion-think=N` (nanoseconds).
  public var parameters = ThinkingParameters()
  /// A word that the program does not know, or a value out of its range; the first byte of it, counted from 0.
  public var unknownWordAt: Int?

  /// Reads a command line of words separated by spaces.
  /// - Returns: nil where `load=think` is not among them.
  public init?(parsing line: [UInt8]) {
    var isAskedFor = false
    var words = CommandLineWords(line)
    while let word = words.next() {
      if word.is("load=think") {
        isAskedFor = true
      } else if !take(word), unknownWordAt == nil {
        unknownWordAt = word.start
      }
    }
    if !isAskedFor {
      return nil
    }
  }

  private mutating func take(_ word: CommandLineWord) -> Bool {
    if word.is("device=ahci") {
      device = .ahci
    } else if word.is("device=virtio") {
      device = .virtio
    } else if word.is("device=none") {
      device = .none
    } else {
      return takeNumber(word)
    }
    return true
  }

  private mutating func takeNumber(_ word: CommandLineWord) -> Bool {
    if let value = word.number(of: "bytes="), value <= ThinkOptions.totalBytesMax {
      parameters.totalBytes = value
    } else if let value = word.number(of: "request="), value > 0, value <= ThinkOptions.requestBytesMax {
      parameters.requestBytes = UInt32(value)
    } else if let value = word.number(of: "batch="), value > 0, value <= ThinkOptions.batchCountMax {
      parameters.batchCount = Int(value)
    } else if let value = word.number(of: "batch-think="), value <= ThinkOptions.thinkNsMax {
      parameters.batchThinkNs = value
    } else if let value = word.number(of: "completion-think="), value <= ThinkOptions.thinkNsMax {
      parameters.completionThinkNs = value
    } else {
      return false
    }
    return true
  }
}
