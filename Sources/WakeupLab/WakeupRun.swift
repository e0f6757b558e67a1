// SPDX-License-Identifier: Apache-2.0
import Accelerators
import Assembly
import AsyncIO
import EventLoop
import GuestDrivers
import HostSystem
import Machine
import Platform
import Synchronization
import Tracing

/// Runs the published workload in a machine, with O_DIRECT on a real file.
public struct WakeupRun: Sendable {
  /// The file that is read; at least as long as the workload reads.
  public var path: String
  /// The workload.
  public var parameters = ThinkingParameters()
  /// What carries the guest.
  public var guest = WakeupGuest.hosted
  /// A display is attached, which the main loop refreshes.
  public var hasDisplay = false
  /// Nanoseconds between the wakeups that the main loop has by itself.
  public var heartbeatNs = Heartbeat.realTimeClockNs

  static let memoryBytes: UInt64 = 64 << 20

  /// The published workload on the file at `path`.
  public init(path: String) { self.path = path }

  private final class Outcome: Sendable {
    let value = Mutex<(figures: WakeupFigures, trace: Trace, failure: String?)>(
      (WakeupFigures(), Trace(threads: []), nil))
  }

  /// Assembles a machine for `scenario`, runs the workload with tracing on, and takes everything down again. Main thread.
  public func run(_ scenario: WakeupScenario) throws -> (figures: WakeupFigures, trace: Trace) {
    var (figures, trace) = guest == .kvm ? try runOnKVM(scenario) : try runHosted(scenario)
    figures.steps = TraceLatencies(trace).all.compactMap { step in
      LatencySummary(step.histogram).map { WakeupStep(name: step.name, latency: $0) }
    }
    return (figures, trace)
  }

  /// The machine of a scenario: one disk, on the file.
  func configuration(of scenario: WakeupScenario) -> MachineConfiguration {
    var drive = DriveConfiguration(source: .file(path: path), id: "lab")
    drive.interface = scenario.interface
    drive.cache = .none
    drive.isReadOnly = true
    drive.engine = .ioUring
    // As QEMU: each request of a batch is one of its own.
    drive.merge = false
    var configuration = MachineConfiguration()
    configuration.memoryBytes = Self.memoryBytes
    configuration.drives = [drive]
    configuration.wakePolicy = scenario.policy
    configuration.heartbeatNs = heartbeatNs
    configuration.activityHz = scenario.activityHz
    configuration.hasDisplay = hasDisplay
    configuration.submission = scenario.submission
    return configuration
  }

  private func runHosted(_ scenario: WakeupScenario) throws -> (figures: WakeupFigures, trace: Trace) {
    let assembled = try AssembledMachine(configuration(of: scenario), serial: MemorySink())
    let machine = assembled.machine
    let outcome = Outcome()
    let lab = self
    _ = assembled.useHosted(processorCount: 1) { bus in
      do throws(DriverError) {
        let figures = try lab.guestProgram(bus, scenario, machine.mainLoop)
        Tracing.stop()
        let trace = Tracing.collect()
        outcome.value.withLock {
          $0.figures = figures
          $0.trace = trace
        }
      } catch {
        outcome.value.withLock { $0.failure = "\(error)" }
      }
      machine.requestShutdown(.hostRequest)
    }
    _ = try assembled.run()
    let (figures, trace, failure) = outcome.value.withLock { $0 }
    if let failure { throw WakeupError("\(scenario.id): the guest's driver gave up: \(failure)") }
    return (figures, trace)
  }

  private func guestProgram(
    _ bus: HostedBus, _ scenario: WakeupScenario, _ loop: EventLoop
  ) throws(DriverError) -> WakeupFigures {
    let topology = PCITopology(bus: bus)
    switch scenario.interface {
    case .virtio:
      let disk = try StartedVirtioDisk(topology: topology, waitMode: .interrupt)
      return try withExtendedLifetime(disk) { () throws(DriverError) in
        try load(bus, disk.queue, sectorCount: disk.sectorCount, loop)
      }
    case .ahci:
      let disk = try StartedAHCIDisk(topology: topology, waitMode: .interrupt)
      return try withExtendedLifetime(disk) { () throws(DriverError) in
        try load(bus, disk.queue, sectorCount: disk.sectorCount, loop)
      }
    }
  }

  private func load<Queue: DiskQueue>(
    _ bus: HostedBus, _ queue: Queue, sectorCount: UInt64, _ loop: EventLoop
  ) throws(DriverError) -> WakeupFigures where Queue.B == HostedBus {
    guard parameters.totalBytes <= sectorCount * 512,
      let buffers = bus.allocate(byteCount: parameters.bufferBytes, alignment: 4096),
      let load = ThinkingLoad(bus: bus, queue: queue, parameters: parameters, buffers: buffers)
    else { throw .outOfResources }
    Tracing.start()
    let before = loop.wakeStatistics
    let start = HostClock.nanoseconds
    let failures = try load.run()
    let elapsed = HostClock.nanoseconds - start
    let after = loop.wakeStatistics
    guard failures == 0 else { throw .deviceBroken }
    var figures = WakeupFigures()
    figures.seconds = Double(elapsed) / 1e9
    figures.requestCount = parameters.requestCount
    figures.eventWrites = after.eventWrites - before.eventWrites
    figures.wakeups = after.wakeups - before.wakeups
    return figures
  }

  /// The same thoughts without any I/O, in such a guest: what no machine can be faster than.
  public func floorSeconds() throws -> Double {
    if guest == .kvm { return try floorSecondsOnKVM() }
    var configuration = MachineConfiguration()
    configuration.memoryBytes = Self.memoryBytes
    let assembled = try AssembledMachine(configuration, serial: MemorySink())
    let machine = assembled.machine
    let parameters = parameters
    let outcome = FloorOutcome()
    _ = assembled.useHosted(processorCount: 1) { bus in
      let start = HostClock.nanoseconds
      try? ThinkingLoad<AHCIQueue<HostedBus>>.think(on: bus, parameters)
      outcome.ns.withLock { $0 = HostClock.nanoseconds - start }
      machine.requestShutdown(.hostRequest)
    }
    _ = try assembled.run()
    return Double(outcome.ns.withLock { $0 }) / 1e9
  }

  private final class FloorOutcome: Sendable {
    let ns = Mutex<UInt64>(0)
  }
}
