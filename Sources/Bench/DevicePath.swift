// SPDX-License-Identifier: Apache-2.0
import Accelerators
import Assembly
import CLinux
import EventLoop
import GuestDrivers
import Histogram
import HostSystem
import Machine
import Platform
import Synchronization

/// One measurement of the whole device path: a hosted guest driver on its thread, the device on another.
///
/// The drive's interface decides the driver: virtio-blk, or AHCI with queued commands.
struct DevicePath {
  /// What was measured.
  struct Figures: Sendable {
    var iops = 0.0
    var requestCount: UInt64 = 0
    var errorCount: UInt64 = 0
    /// CPU time per request, microseconds: of the device's thread where the drive has one. On the main loop of the whole
    /// process with the guest's driver, for a part of the device's work is done by the thread that rings the doorbell.
    var userMicroseconds = 0.0
    var systemMicroseconds = 0.0
    /// Latency as the guest sees it, microseconds.
    var medianMicroseconds = 0.0
    var p99Microseconds = 0.0
    var p999Microseconds = 0.0
    /// Doorbells that the guest had to write, per request.
    var doorbells = 0.0
  }

  /// Requests that tell how many fit into the time asked for.
  private static let calibrationRequests: UInt64 = 2000
  /// Memory of the guest: rings, slots and buffers of the deepest queue.
  private static let memoryBytes: UInt64 = 64 << 20
  /// Longest time that the device's loop polls before it sleeps.
  private static let pollNsMax: UInt64 = 400_000

  var drive: DriveConfiguration
  var workload: Workload
  var depth: Int
  var seconds: Double
  /// How the guest learns of completions.
  var waiting = Waiting.looks
  /// The drive has a loop of its own, which polls before it sleeps; otherwise the main loop serves it, which never polls.
  var usesIOThread = true
  /// Who enters the kernel for what the guest queues on the main loop. A vCPU does not merge requests.
  var submission = SubmissionThread.loop

  /// How a guest learns of completions.
  enum Waiting: Sendable {
    /// It looks all the time.
    case looks
    /// It sleeps until an interrupt, which it asks for once in so many requests where the queue can do that.
    case sleeps(requestsPerInterrupt: Int)
  }

  /// Latencies in ticks.
  private struct Recorder: LatencyRecorder {
    static var isEnabled: Bool { true }
    var histogram = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
    mutating func record(ticks: UInt64) { histogram.record(ticks) }
  }

  private final class Outcome: Sendable {
    let value = Mutex<(figures: Figures, failure: String?)>((Figures(), nil))
    let usage = Mutex<(before: ResourceUsage, after: ResourceUsage)>((ResourceUsage(), ResourceUsage()))

    func note(_ now: ResourceUsage, isStart: Bool) {
      usage.withLock { if isStart { $0.before = now } else { $0.after = now } }
    }
  }

  /// Assembles a machine, runs the load, and takes everything down again.
  func run() throws -> Figures {
    var configuration = MachineConfiguration()
    configuration.memoryBytes = Self.memoryBytes
    configuration.drives = [drive]
    configuration.submission = submission
    if submission == .vcpu { configuration.drives[0].merge = false }
    configuration.usesIOThreads = usesIOThread
    configuration.pollNsMax = Self.pollNsMax
    let assembled = try AssembledMachine(configuration, serial: MemorySink())
    let machine = assembled.machine
    let loop = assembled.backends[0].loop
    let outcome = Outcome()
    let measurement = self
    _ = assembled.useHosted(processorCount: 1) { bus in
      do throws(DriverError) {
        let figures = try measurement.guestProgram(bus) { isStart in
          if measurement.usesIOThread {
            loop.execute { outcome.note(.ofThisThread(), isStart: isStart) }
          } else {
            outcome.note(ResourceUsage(), isStart: isStart)
          }
        }
        outcome.value.withLock { $0.figures = figures }
      } catch {
        outcome.value.withLock { $0.failure = "\(error)" }
      }
      machine.requestShutdown(.hostRequest)
    }
    _ = try assembled.run()
    var (figures, failure) = outcome.value.withLock { $0 }
    if let failure { throw BenchError("the guest's driver gave up: \(failure)") }
    let requests = Double(figures.requestCount)
    let usage = outcome.usage.withLock { $0 }
    figures.userMicroseconds = Double(usage.after.userMicroseconds - usage.before.userMicroseconds) / requests
    figures.systemMicroseconds = Double(usage.after.systemMicroseconds - usage.before.systemMicroseconds) / requests
    if figures.errorCount > 0 { throw BenchError("\(figures.errorCount) requests failed") }
    return figures
  }

  // MARK: The guest's side

  /// Finds the disk, starts it, and loads it.
  private func guestProgram(
    _ bus: HostedBus, _ mark: (_ isStart: Bool) -> Void
  ) throws(DriverError) -> Figures {
    let topology = PCITopology(bus: bus)
    switch drive.interface {
    case .virtio:
      let disk = try StartedVirtioDisk(topology: topology, waitMode: waitMode)
      return try withExtendedLifetime(disk) { () throws(DriverError) in
        try load(bus, disk.queue, sectorCount: disk.sectorCount, mark)
      }
    case .ahci:
      let disk = try StartedAHCIDisk(topology: topology, waitMode: waitMode)
      return try withExtendedLifetime(disk) { () throws(DriverError) in
        try load(bus, disk.queue, sectorCount: disk.sectorCount, mark)
      }
    }
  }

  private var waitMode: WaitMode {
    switch waiting {
    case .looks: .poll
    case .sleeps: .interrupt
    }
  }

  /// Learns how many requests fit into the time, does them, and measures.
  private func load<Queue: DiskQueue>(
    _ bus: HostedBus, _ queue: Queue, sectorCount: UInt64, _ mark: (_ isStart: Bool) -> Void
  ) throws(DriverError) -> Figures where Queue.B == HostedBus {
    var parameters = BlockLoadParameters()
    parameters.writes = workload.isWrite
    parameters.byteCount = UInt32(workload.blockBytes)
    parameters.depth = depth
    parameters.sectorCount = min(workload.spanBytes / 512, sectorCount)
    parameters.requestCount = Self.calibrationRequests
    parameters.waitMode = waitMode
    if case .sleeps(let count) = waiting { parameters.usesPerInterrupt = UInt16(count) }
    guard let buffers = bus.allocate(byteCount: parameters.bufferBytes, alignment: 4096) else { throw .outOfResources }

    func prepare(_ parameters: BlockLoadParameters) throws(DriverError) -> BlockLoad<Queue> {
      guard let load = BlockLoad(bus: bus, queue: queue, parameters: parameters, buffers: buffers) else {
        throw .outOfResources
      }
      return load
    }
    let calibrationStart = HostClock.nanoseconds
    _ = try prepare(parameters).run()
    let rate = Double(Self.calibrationRequests) / Double(HostClock.nanoseconds - calibrationStart) * 1e9
    parameters.requestCount = max(Self.calibrationRequests, UInt64(rate * seconds))
    parameters.seed = 2
    let measured = try prepare(parameters)
    var recorder = Recorder()
    mark(true)
    let start = HostClock.nanoseconds
    let result = try measured.run(recorder: &recorder)
    let elapsed = Double(HostClock.nanoseconds - start)
    mark(false)
    return figures(of: result, recorder, elapsedNs: elapsed)
  }

  private func figures(of result: BlockLoadResult, _ recorder: Recorder, elapsedNs: Double) -> Figures {
    let microsecondsPerTick = elapsedNs / Double(result.ticks) / 1000
    func percentile(_ percent: Double) -> Double {
      Double(recorder.histogram.valueAtPercentile(percent)) * microsecondsPerTick
    }
    var figures = Figures()
    figures.iops = Double(result.completedCount) / elapsedNs * 1e9
    figures.errorCount = result.errorCount
    figures.medianMicroseconds = percentile(50)
    figures.p99Microseconds = percentile(99)
    figures.p999Microseconds = percentile(99.9)
    figures.doorbells = Double(result.notificationCount) / Double(result.completedCount)
    figures.requestCount = result.completedCount
    return figures
  }
}
