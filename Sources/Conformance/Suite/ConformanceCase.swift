// SPDX-License-Identifier: Apache-2.0

/// What a case found wrong.
public struct ConformanceFailure: Error, Equatable, Sendable, CustomStringConvertible {
  /// What was expected, and what was seen.
  public var description: String

  /// Describes a failure.
  public init(_ description: String) {
    self.description = description
  }
}

/// A case that cannot be tried on the machine: it lacks what the case is about, and may lack it.
public struct ConformanceSkip: Error, Equatable, Sendable {
  /// What is missing.
  public var reason: String

  /// Describes what is missing.
  public init(_ reason: String) {
    self.reason = reason
  }
}

/// One behaviour of a device, and how a driver sees it.
public struct ConformanceCase: Sendable {
  /// Subject, a slash, and a name: `virtio/…`, `ahci/…`, `ata/…`, `atapi/…`, `pci/…`, `loop/…`.
  public var id: String
  /// The behaviour, as a sentence.
  public var title: String
  /// Where the behaviour is laid down: specification and section, and the row of the known failures where it is one.
  public var section: String
  /// The clauses in `section`, without known failures.
  public var clauses: String {
    section.split(separator: "; ").filter { !$0.hasPrefix("known failure") }.joined(separator: "; ")
  }
  /// What the machine has.
  public var machine: MachineKind
  /// Whether the case leaves the machine as the next one of its kind wants it: it begins with a reset of its device,
  /// and writes nothing but sectors of its own.
  public var sharesMachine: Bool
  /// Throws a `ConformanceFailure`, a `ConformanceSkip` or a `DriverError`, or passes.
  public var body: @Sendable (CaseContext) throws -> Void

  /// Describes a case.
  public init(
    _ id: String, _ title: String, _ section: String, _ machine: MachineKind, shares: Bool = false,
    _ body: @escaping @Sendable (CaseContext) throws -> Void
  ) {
    self.id = id
    self.title = title
    self.section = section
    self.machine = machine
    sharesMachine = shares
    self.body = body
  }
}

/// A behaviour in which another implementation is known to differ from the specification, as we read it.
public struct KnownDifference: Sendable {
  /// The case.
  public var caseID: String
  /// Who differs.
  public var target: TargetKind
  /// What it does instead, and why that is no fault of the case.
  public var reason: String

  /// Describes a difference.
  public init(_ caseID: String, _ target: TargetKind, _ reason: String) {
    self.caseID = caseID
    self.target = target
    self.reason = reason
  }

  /// The verdict for a case that is known to differ, from what was seen.
  func judge(_ seen: Verdict) -> Verdict {
    switch seen {
    case .failed(let text): .knownDifference(reason, seen: text)
    case .passed: .missingDifference(reason)
    default: seen
    }
  }
}
