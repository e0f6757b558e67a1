// SPDX-License-Identifier: Apache-2.0

/// Which engine serves a file, and why: what `aio=auto` does, and what an explicit choice is checked against.
///
/// A wrong guess costs speed only: every engine serves every file that can be opened at all, but for Linux AIO, which is
/// taken only where it is known to be asynchronous.
public struct EngineChoice: Equatable, Sendable {
  /// The engine.
  public var kind: EngineKind
  /// Why this one.
  public var reason: String

  /// States a choice.
  public init(kind: EngineKind, reason: String) {
    self.kind = kind
    self.reason = reason
  }

  /// Picks the fastest engine that surely works for a file.
  /// - Parameters:
  ///   - isDirect: the file is open with O_DIRECT.
  ///   - engines: what this host has.
  public static func auto(facts: FileFacts, isDirect: Bool, engines: [EngineAvailability]) -> EngineChoice {
    let isUsable = { (kind: EngineKind) in engines.contains { $0.kind == kind && $0.isUsable } }
    if isUsable(.ioUring) {
      return EngineChoice(
        kind: .ioUring, reason: "io_uring works here, for cached and direct I/O of every kind of file")
    }
    let obstacle = engines.first { $0.kind == .ioUring }?.obstacle ?? "not built in"
    if let objection = objection(to: .linuxAIO, facts: facts, isDirect: isDirect, engines: engines) {
      return EngineChoice(kind: .threads, reason: "io_uring: \(obstacle); linux-aio: \(objection)")
    }
    return EngineChoice(
      kind: .linuxAIO, reason: "io_uring: \(obstacle); direct I/O on \(facts.fileSystem) is asynchronous")
  }

  /// Why an engine should not serve a file; nil where nothing speaks against it.
  public static func objection(
    to kind: EngineKind, facts: FileFacts, isDirect: Bool, engines: [EngineAvailability]
  ) -> String? {
    if let engine = engines.first(where: { $0.kind == kind }), let obstacle = engine.obstacle { return obstacle }
    guard kind == .linuxAIO else { return nil }
    if !isDirect { return "waits inside a submission without O_DIRECT (cache=none or cache=directsync)" }
    return facts.isKnownAsynchronous
      ? nil : "direct I/O on \(facts.fileSystem) is not known to be asynchronous"
  }

  /// Why a user who names an engine cannot have it; nil where it works, if only slowly.
  public static func refusal(
    of kind: EngineKind, isDirect: Bool, engines: [EngineAvailability]
  ) -> String? {
    var facts = FileFacts()
    // A user may know better than our list of file systems.
    facts.isKnownAsynchronous = true
    return objection(to: kind, facts: facts, isDirect: isDirect, engines: engines)
  }
}
