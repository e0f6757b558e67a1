// SPDX-License-Identifier: Apache-2.0
// The workload in the test guest on KVM, small enough for a test.
import Accelerators
import Assembly
import EventLoop
import Glibc
import GuestDrivers
import Testing
import TracingTestKit

@testable import WakeupLab

private let kvmAvailability = KVMAccelerator.probe()
private let ioUringWorks = (try? EventLoop(name: "probe", monitor: .ioUring)) != nil

@Suite struct WakeupGuestTests {
  @Test func aHostedGuestRunsEverywhere() throws { try WakeupGuest.hosted.check() }

  @Test func aHostWithoutKVMIsNamedInOneLine() throws {
    switch kvmAvailability {
    case .usable: try WakeupGuest.kvm.check()
    case .unusable:
      let error = try #require(throws: SetupError.self) { try WakeupGuest.kvm.check() }
      #expect(error.description.hasPrefix("--guest kvm: ") && error.description.hasSuffix("; use --guest hosted"))
      #expect(!error.description.contains("\n"))
    }
  }

  @Test func theGuestIsToldTheWholeWorkload() {
    var parameters = ThinkingParameters()
    parameters.totalBytes = 1 << 20
    parameters.requestBytes = 4096
    parameters.batchCount = 7
    parameters.batchThinkNs = 11
    parameters.completionThinkNs = 13
    let run = KVMGuestRun(
      configuration: MachineConfiguration(), device: .virtio, parameters: parameters, traces: false)
    let options = ThinkOptions(parsing: Array(run.commandLine.utf8))
    #expect(options?.device == .virtio && options?.parameters == parameters && options?.unknownWordAt == nil)
  }
}

@Suite(
  .enabled(if: kvmAvailability == .usable, "KVM does not work here"),
  .enabled(if: ioUringWorks, "io_uring is not permitted here"))
struct KVMGuestTests {
  private static let requestCount: UInt64 = 16
  private static let batchCount: UInt64 = 4

  private func parameters(fileBytes: UInt64) -> ThinkingParameters {
    var parameters = ThinkingParameters()
    parameters.totalBytes = fileBytes
    parameters.requestBytes = 64 << 10
    parameters.batchCount = Int(Self.requestCount / Self.batchCount)
    parameters.batchThinkNs = 10_000
    parameters.completionThinkNs = 10_000
    return parameters
  }

  /// A run on a file of 1 MiB that reads `totalBytes` of it.
  private func run(
    _ interface: DriveConfiguration.Interface, _ policy: WakePolicy, totalBytes: UInt64 = 1 << 20
  ) throws -> WakeupFigures {
    let file = try LabFile()
    var lab = WakeupRun(path: file.path)
    lab.guest = .kvm
    lab.parameters = parameters(fileBytes: totalBytes)
    lab.heartbeatNs = 2_000_000
    // Tracing is the process's, and so one run's at a time.
    return try withExtendedLifetime(file) {
      try withTracing { try lab.run(WakeupScenario(interface: interface, policy: policy)).figures }
    }
  }

  @Test func alwaysWritesTheEventfdForEachSubmission() throws {
    let figures = try run(.ahci, .always)
    #expect(figures.requestCount == Self.requestCount)
    #expect(figures.eventWrites >= Self.requestCount)
    #expect(figures.steps.contains { $0.name == "queued to submitted" && $0.latency.count == Self.requestCount })
  }

  @Test func elidedWritesTheEventfdAtMostOnceABatch() throws {
    let figures = try run(.ahci, .elided)
    #expect(figures.requestCount == Self.requestCount)
    #expect((1...Self.batchCount).contains(figures.eventWrites))
  }

  @Test func withoutTheWakeupOnlyTheLoopsOwnTimersSubmit() throws {
    let figures = try run(.ahci, .never)
    #expect(figures.requestCount == Self.requestCount)
    #expect(figures.eventWrites == 0 && figures.wakeups == 0)
  }

  /// A virtio doorbell is an ioeventfd, which wakes the loop without an exit.
  @Test func virtioNeedsNoWakeup() throws {
    #expect(try run(.virtio, .never).requestCount == Self.requestCount)
  }

  @Test func theGuestSleepsAtLeastAsLongAsItThinks() throws {
    var parameters = parameters(fileBytes: 1 << 20)
    parameters.batchThinkNs = 300_000
    var configuration = MachineConfiguration()
    configuration.memoryBytes = 64 << 20
    let report = try KVMGuestRun(
      configuration: configuration, device: .none, parameters: parameters, traces: false
    ).run().report
    #expect(report.elapsedNs >= parameters.thinkNs)
    #expect(report.requestCount == 0)
  }

  @Test func whyTheGuestGaveUpIsSaid() throws {
    let error = try #require(throws: WakeupError.self) { _ = try run(.ahci, .elided, totalBytes: 2 << 20) }
    #expect(error.description == "wakeup/ahci/elided: the guest gave up: the disk is smaller than what is to be read")
  }
}
