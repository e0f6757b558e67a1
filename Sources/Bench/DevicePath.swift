// SPDX-License-Identifier: Apache-2.0
import Accelerators
import Assembly
import CLinux
import GuestDrivers
import Histogram
import HostSystem
import Machine
import Platform
import Synchronization

/// One measurement of the whole device path: a hosted guest driver on its thread, the device on another.
struct DevicePath {
  /// What was measured.
  struct Figures: Sendable {
    var iops = 0.0
    var requestCount: UInt64 = 0
    var errorCount: UInt64 = 0
    /// CPU time per request of the device's thread, microseconds.
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
  /// The guest sleeps until an interrupt for a quarter of its requests, instead of looking at the used ring all the time.
  var sleeps = false

  /// Latencies in ticks.
  private struct Recorder: LatencyRecorder {
    static var isEnabled: Bool { true }
    var histogram = Histogram<UInt64>(numberOfSignificantValueDigits: .three)
    mutating func record(ticks: UInt64) { histogram.record(ticks) }
  }

  private final class Outcome: Sendable {
    let value = Mutex<(figures: Figures, failure: String?)>((Figures(), nil))
    let usage = Mutex<(before: ResourceUsage, after: ResourceUsage)>((ResourceUsage(), ResourceUsage()))
  }

  /// Assembles a machine, runs the load, and takes everything down again.
  func run() throws -> Figures {
    var configuration = MachineConfiguration()
    configuration.memoryBytes = Self.memoryBytes
    configuration.drives = [drive]
    configuration.usesIOThreads = true
    configuration.pollNsMax = Self.pollNsMax
    let assembled = try AssembledMachine(configuration, serial: MemorySink())
    let machine = assembled.machine
    let loop = assembled.backends[0].loop
    let outcome = Outcome()
    let measurement = self
    _ = assembled.useHosted(processorCount: 1) { bus in
      do throws(DriverError) {
        let figures = try measurement.guestProgram(bus) { isStart in
          loop.execute {
            let usage = ResourceUsage.ofThisThread()
            outcome.usage.withLock { if isStart { $0.before = usage } else { $0.after = usage } }
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

  /// The guest's side: finds the disk, starts it, and loads it.
  private func guestProgram(
    _ bus: HostedBus, _ mark: (_ isStart: Bool) -> Void
  ) throws(DriverError) -> Figures {
    let topology = PCITopology(bus: bus)
    guard let entry = topology.entries.first(where: { VirtioBlockDriver<HostedBus>.drives($0.function) }) else {
      throw .outOfResources
    }
    let driver = try VirtioBlockDriver(topology: topology, entry: entry)
    var options = VirtioBlockDriver<HostedBus>.Options()
    options.queueSizeMax = 256
    options.waitMode = sleeps ? .interrupt : .poll
    try driver.start(options)
    var parameters = BlockLoadParameters()
    parameters.writes = workload.isWrite
    parameters.byteCount = UInt32(workload.blockBytes)
    parameters.depth = depth
    parameters.sectorCount = min(workload.spanBytes / 512, driver.configuration.sectorCount)
    parameters.requestCount = Self.calibrationRequests
    parameters.waitMode = options.waitMode
    parameters.usesPerInterrupt = sleeps ? UInt16(max(1, depth / 4)) : 1
    let bufferBytes = parameters.bufferBytes
    guard let buffers = bus.allocate(byteCount: bufferBytes, alignment: 4096) else { throw .outOfResources }

    func load(_ parameters: BlockLoadParameters) throws(DriverError) -> BlockLoad<VirtioBlockQueue<HostedBus>> {
      guard let load = BlockLoad(bus: bus, queue: driver.queues[0], parameters: parameters, buffers: buffers) else {
        throw .outOfResources
      }
      return load
    }
    let calibrationStart = HostClock.nanoseconds
    _ = try load(parameters).run()
    let rate = Double(Self.calibrationRequests) / Double(HostClock.nanoseconds - calibrationStart) * 1e9
    parameters.requestCount = max(Self.calibrationRequests, UInt64(rate * seconds))
    parameters.seed = 2
    let measured = try load(parameters)
    var recorder = Recorder()
    mark(true)
    let start = HostClock.nanoseconds
    let result = try measured.run(recorder: &recorder)
    let elapsed = Double(HostClock.nanoseconds - start)
    mark(false)
    let microsecondsPerTick = elapsed / Double(result.ticks) / 1000
    func percentile(_ percent: Double) -> Double {
      Double(recorder.histogram.valueAtPercentile(percent)) * microsecondsPerTick
    }
    var figures = Figures()
    figures.iops = Double(result.completedCount) / elapsed * 1e9
    figures.errorCount = result.errorCount
    figures.medianMicroseconds = percentile(50)
    figures.p99Microseconds = percentile(99)
    figures.p999Microseconds = percentile(99.9)
    figures.doorbells = Double(result.notificationCount) / Double(result.completedCount)
    figures.requestCount = result.completedCount
    return figures
  }
}
