// SPDX-License-Identifier: Apache-2.0
// The workload in whole machines, small enough for a test (known failure 53; QEMU 2ae361ef1d).
import Assembly
import EventLoop
import Glibc
import Testing
import TracingTestKit

@testable import WakeupLab

private let ioUringWorks = (try? EventLoop(name: "probe", monitor: .ioUring)) != nil

@Suite(.enabled(if: ioUringWorks, "io_uring is not permitted here")) struct WakeupRunTests {
  private static let requestCount: UInt64 = 16

  private func run(
    _ interface: DriveConfiguration.Interface, _ policy: WakePolicy, submission: SubmissionThread = .loop
  ) throws -> WakeupFigures {
    let file = try LabFile()
    var lab = WakeupRun(path: file.path)
    lab.parameters.totalBytes = 1 << 20
    lab.parameters.requestBytes = 64 << 10
    lab.parameters.batchCount = 4
    lab.parameters.batchThinkNs = 10_000
    lab.parameters.completionThinkNs = 10_000
    lab.heartbeatNs = 2_000_000
    // Tracing is the process's, and so one run's at a time.
    let scenario = WakeupScenario(interface: interface, policy: policy, submission: submission)
    return try withExtendedLifetime(file) { try withTracing { try lab.run(scenario).figures } }
  }

  @Test func withoutTheWakeupOnlyTheLoopsOwnTimersSubmit() throws {
    let figures = try run(.ahci, .never)
    #expect(figures.requestCount == Self.requestCount)
    #expect(figures.eventWrites == 0)
    #expect(figures.wakeups == 0)
  }

  @Test func elidedWritesTheEventfdAtMostOnceABatch() throws {
    let figures = try run(.ahci, .elided)
    #expect(figures.requestCount == Self.requestCount)
    #expect(figures.eventWrites <= 4)
  }

  @Test func alwaysWritesTheEventfdForEachSubmission() throws {
    let figures = try run(.ahci, .always)
    #expect(figures.eventWrites >= Self.requestCount)
    #expect(figures.steps.contains { $0.name == "queued to submitted" })
  }

  /// Nobody needs to be woken before something completes, so not even `never` is slow.
  @Test(arguments: [WakePolicy.never, .always])
  func vcpuThatSubmitsItselfWritesNoEventfd(_ policy: WakePolicy) throws {
    let figures = try run(.ahci, policy, submission: .vcpu)
    #expect(figures.requestCount == Self.requestCount)
    #expect(figures.eventWrites == 0)
    #expect(figures.steps.contains { $0.name == "queued to submitted" })
  }

  /// A virtio doorbell wakes the loop by an eventfd of its own, whatever the policy.
  @Test(arguments: [WakePolicy.never, .elided, .always])
  func virtioNeedsNoWakeup(_ policy: WakePolicy) throws {
    #expect(try run(.virtio, policy).requestCount == Self.requestCount)
  }
}
