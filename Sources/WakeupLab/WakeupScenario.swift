// SPDX-License-Identifier: Apache-2.0
// WakeupLab: reproduces QEMU's lost vCPU wakeup on the reader's own machine, measures it, and says whether the fix holds.
// It assembles machines and loads them; it knows no device from inside.
import Assembly
import EventLoop
import GuestDrivers
import Tracing

/// One row of the reproduction: a device and a wake policy.
public struct WakeupScenario: Equatable, Sendable {
  /// What the disk is behind.
  public var interface: DriveConfiguration.Interface
  /// When the main loop is woken for what a vCPU has queued.
  public var policy: WakePolicy
  /// Wakeups a second that other work gives the main loop; 0 for none.
  public var activityHz: UInt64 = 0
  /// Who enters the kernel for what the vCPU queues.
  public var submission = SubmissionThread.loop
  /// What QEMU's developers measured in this situation, seconds (qemu-devel, February 2026); nil where they did not.
  public var publishedSeconds: Double?

  /// Describes a row.
  public init(
    interface: DriveConfiguration.Interface, policy: WakePolicy, activityHz: UInt64 = 0,
    submission: SubmissionThread = .loop, publishedSeconds: Double? = nil
  ) {
    self.interface = interface
    self.policy = policy
    self.activityHz = activityHz
    self.submission = submission
    self.publishedSeconds = publishedSeconds
  }

  /// The name in results, such as `wakeup/ahci/never+activity`.
  public var id: String {
    let device = interface == .ahci ? "ahci" : "virtio-blk"
    let submitter = submission == .vcpu ? "+submit-vcpu" : ""
    return "wakeup/\(device)/\(policy.rawValue)" + (activityHz > 0 ? "+activity" : "") + submitter
  }

  /// The row in words, such as `AHCI, never + activity`.
  var title: String {
    let device = interface == .ahci ? "AHCI" : "virtio-blk"
    if submission == .vcpu { return "\(device), vCPU submits" }
    return "\(device), \(policy.rawValue)" + (activityHz > 0 ? " + activity" : "")
  }

  /// The published table, and `elided` beside it. `activityHz` plays the busy ssh session of the report.
  public static func all(activityHz: UInt64) -> [WakeupScenario] {
    [
      WakeupScenario(interface: .ahci, policy: .never, publishedSeconds: 25.76),
      WakeupScenario(interface: .ahci, policy: .never, activityHz: activityHz, publishedSeconds: 1.23),
      WakeupScenario(interface: .ahci, policy: .always, publishedSeconds: 1.30),
      WakeupScenario(interface: .ahci, policy: .elided),
      WakeupScenario(interface: .ahci, policy: .elided, submission: .vcpu),
      WakeupScenario(interface: .virtio, policy: .always, publishedSeconds: 1.25),
    ]
  }
}

/// What came of a run.
public struct WakeupFigures: Equatable, Sendable {
  /// From the first thought to the end of the last one, seconds.
  public var seconds = 0.0
  /// Requests that were made.
  public var requestCount: UInt64 = 0
  /// How often the main loop's eventfd was written during the run.
  public var eventWrites: UInt64 = 0
  /// How often the main loop found it written.
  public var wakeups: UInt64 = 0
  /// How long each step took, in the order of a request's life.
  public var steps: [WakeupStep] = []

  /// No figures.
  public init() {}
}

/// One step of a request's life.
public struct WakeupStep: Equatable, Sendable {
  /// From which trace point to which.
  public var name: String
  /// How long it took.
  public var latency: LatencySummary

  /// Names a step and says how long it took.
  public init(name: String, latency: LatencySummary) {
    self.name = name
    self.latency = latency
  }
}

/// Why the lab could not do its work, as one line.
public struct WakeupError: Error, Equatable, CustomStringConvertible, Sendable {
  /// The line.
  public let description: String

  init(_ description: String) { self.description = description }
}
