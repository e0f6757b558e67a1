// SPDX-License-Identifier: Apache-2.0
// Requests of a guest, traced through the whole process.
import Accelerators
import AsyncIO
import EventLoop
import Glibc
import GuestDrivers
import HostSystem
import Machine
import Platform
import Synchronization
import Testing
import Tracing
import TracingTestKit

@testable import Assembly

private let ioUringWorks: Bool = {
  guard let loop = try? EventLoop(name: "probe") else { return false }
  return (try? loop.ring()) != nil
}()

/// A file of zeroes that is gone when the test is over.
private final class ImageOnDisk {
  let path = "/var/tmp/spindle-trace-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
  init(byteCount: Int) throws { try writeWholeFile(path, [UInt8](repeating: 0, count: byteCount)) }
  deinit { unlink(path) }
}

private let linuxAIOWorks: Bool = {
  guard let loop = try? EventLoop(name: "probe"), let engine = try? LinuxAIOEngine(loop: loop) else { return false }
  engine.close()
  return true
}()

@Suite struct TraceTests {
  private static let requestCount = 4

  /// What the guest's thread has to say.
  private final class Guest: Sendable {
    private let state = Mutex<(thread: Int32, failure: String?)>((0, nil))
    func began() { state.withLock { $0.thread = HostThread.currentIdentifier } }
    func failed(_ error: any Error) { state.withLock { $0.failure = "\(error)" } }
    var thread: Int32 { state.withLock { $0.thread } }
    var failure: String? { state.withLock { $0.failure } }
  }

  /// Reads 4 KiB at each of four sectors with one doorbell, and waits for all. The trace begins after another read, so
  /// that the device is at work for sure: what is queued before that is found without a doorbell.
  private static func read<Queue: DiskQueue>(
    _ queue: Queue, _ bus: HostedBus, stride: UInt64
  ) throws where Queue.B == HostedBus {
    guard let buffer = bus.allocate(byteCount: UInt64(requestCount) * 4096, alignment: 4096) else {
      throw DriverError.outOfResources
    }
    guard try queue.readAndWait(sector: 0, into: buffer, byteCount: 4096) else { throw DriverError.deviceBroken }
    Tracing.start()
    try queue.checkIdle()
    for slot in 0..<requestCount {
      let address = buffer + UInt64(slot) * 4096
      queue.prepare(slot: slot, writes: false, address: address, byteCount: 4096)
      queue.submit(slot: slot, sector: UInt64(slot) * stride)
    }
    queue.kick()
    for _ in 0..<requestCount { _ = try queue.waitForSlot() }
  }

  private static func readAHCI(_ bus: HostedBus, stride: UInt64) throws {
    let topology = PCITopology(bus: bus)
    let entry = topology.entries.first { AHCIController<HostedBus>.drives($0.function) }
    let controller = try AHCIController(topology: topology, entry: #require(entry))
    try controller.start(waitMode: .interrupt)
    let port = try #require(controller.ports.first { $0.queue != nil })
    try read(#require(port.queue), bus, stride: stride)
    // A guest that was late to sleep has seen the completions without the interrupt.
    port.engine.write(AHCIPortRegister.interruptStatus, UInt32.max)
  }

  private static func readVirtio(_ bus: HostedBus, stride: UInt64) throws {
    let topology = PCITopology(bus: bus)
    let entry = topology.entries.first { VirtioBlockDriver<HostedBus>.drives($0.function) }
    let driver = try VirtioBlockDriver(topology: topology, entry: #require(entry))
    var options = VirtioBlockDriver<HostedBus>.Options()
    // Without EVENT_IDX the device interrupts whether the guest sleeps yet or not (virtio 1.3 §2.7.7).
    options.featureMask &= ~VirtioBlockFeature.eventIndex
    try driver.start(options)
    try read(driver.queues[0], bus, stride: stride)
  }

  /// A guest's four reads; other tests of this process may run machines meanwhile, whose requests begin on other threads.
  private struct Outcome {
    var trace: Trace
    var requests: [RequestTimes]
    var guestThread: Int32
    var loopThread: Int32

    func thread(_ place: TracePlace?) -> Int32? { place.map { trace.threads[$0.thread].identifier } }
    func events(_ point: TracePoint, thread: Int32) -> [TraceEvent] {
      trace.threads.filter { $0.identifier == thread }.flatMap(\.events).filter { $0.point == point }
    }
  }

  /// Runs a machine whose guest reads from its disk, which the main loop serves, with tracing on.
  private func run(_ drive: String, loop: LoopMonitor = .poll, stride: UInt64 = 100) throws -> Outcome {
    let image = try ImageOnDisk(byteCount: 1 << 20)
    var configuration = MachineConfiguration()
    configuration.memoryBytes = 64 << 20
    configuration.monitor = loop
    configuration.drives = [try DriveConfiguration(parsing: "file=\(image.path),cache=none,\(drive)", index: 0)]
    let usesAHCI = configuration.drives[0].interface == .ahci
    let guest = Guest()
    let trace = try withTracing {
      let assembled = try AssembledMachine(configuration, serial: MemorySink())
      let machine = assembled.machine
      _ = assembled.useHosted(processorCount: 1) { bus in
        guest.began()
        do {
          if usesAHCI { try Self.readAHCI(bus, stride: stride) } else { try Self.readVirtio(bus, stride: stride) }
        } catch {
          guest.failed(error)
        }
        machine.requestShutdown(.hostRequest)
      }
      _ = try assembled.run()
      return Tracing.collect()
    }
    #expect(guest.failure == nil)
    let own = HostThread.currentIdentifier
    let begins = usesAHCI ? guest.thread : own
    let requests = trace.requests.filter { request in
      request.begun.map { trace.threads[$0.thread].identifier == begins } ?? false
    }
    return Outcome(trace: trace, requests: requests, guestThread: guest.thread, loopThread: own)
  }

  /// Each request shows every point, in order, on the thread where it happens.
  private func expectWholeWay(_ outcome: Outcome, submitter: Int32?) {
    #expect(outcome.requests.count == Self.requestCount)
    for request in outcome.requests {
      #expect(
        request.places.map(\.point) == [.doorbell, .request, .queued, .submitted, .completed, .interrupt])
      let times = request.places.map(\.place.time)
      #expect(times == times.sorted(), "\(request)")
      for place in [request.doorbell, request.begun] { #expect(outcome.thread(place) == outcome.guestThread) }
      if let submitter { #expect(outcome.thread(request.submitted) == submitter) }
      for place in [request.completed, request.interrupt] { #expect(outcome.thread(place) == outcome.loopThread) }
    }
    #expect(Set(outcome.requests.map(\.request)).count == Self.requestCount)
    let doorbells = outcome.events(.doorbell, thread: outcome.guestThread)
    #expect(doorbells.map(\.value) == [0b1111])
    let exits = outcome.events(.exit, thread: outcome.guestThread).map { $0.value == TraceExit.end.rawValue }
    // The guest's last access may lie before the trace's first event or after its last; what is there alternates.
    #expect(zip(exits, exits.dropFirst()).allSatisfy { $0 != $1 })
    #expect(!outcome.events(.acknowledged, thread: outcome.guestThread).isEmpty)
  }

  @Test(.enabled(if: ioUringWorks, "io_uring is not permitted here"), arguments: [LoopMonitor.poll, .epoll, .ioUring])
  func queuedCommandIsTracedFromDoorbellToInterrupt(loop: LoopMonitor) throws {
    let outcome = try run("if=ahci,aio=io_uring,merge=off", loop: loop)
    expectWholeWay(outcome, submitter: outcome.loopThread)
    for request in outcome.requests { #expect(outcome.thread(request.queued) == outcome.guestThread) }
    let latencies = TraceLatencies(outcome.trace)
    #expect(latencies.doorbellToInterrupt.totalCount >= UInt64(Self.requestCount))
    #expect(latencies.queuedToSubmitted.totalCount >= UInt64(Self.requestCount))
    // Whether the vCPU's entries found the loop asleep is up to the scheduler.
    if latencies.queuedToWoken.totalCount > 0 { #expect(latencies.notifiedToWoken.totalCount > 0) }
  }

  @Test(.enabled(if: ioUringWorks, "io_uring is not permitted here"))
  func mergedRequestsAreTracedEachByItself() throws {
    let outcome = try run("if=ahci,aio=io_uring,merge=on", stride: 8)
    expectWholeWay(outcome, submitter: outcome.loopThread)
    #expect(Set(outcome.requests.map(\.submitted?.time)).count == 1)
  }

  @Test(.enabled(if: linuxAIOWorks, "Linux AIO is not permitted here"))
  func requestOfLinuxAIOIsTraced() throws {
    let outcome = try run("if=ahci,aio=linux-aio")
    expectWholeWay(outcome, submitter: outcome.loopThread)
  }

  @Test func requestOfTheThreadPoolIsTracedOnTheWorkerThatDoesIt() throws {
    let outcome = try run("if=ahci,aio=threads")
    expectWholeWay(outcome, submitter: nil)
    for request in outcome.requests {
      let worker = outcome.thread(request.submitted)
      #expect(worker != outcome.loopThread && worker != outcome.guestThread)
    }
  }

  @Test(.enabled(if: ioUringWorks, "io_uring is not permitted here"))
  func virtioRequestIsTracedFromItsDoorbellOnTheLoop() throws {
    let outcome = try run("if=virtio,aio=io_uring")
    #expect(outcome.requests.count == Self.requestCount)
    for request in outcome.requests {
      // A guest that is still at work on the requests before wants no interrupt for these.
      let points = request.places.map(\.point).filter { $0 != .interrupt }
      #expect(points == [.doorbell, .request, .queued, .submitted, .completed])
      #expect(request.places.allSatisfy { outcome.thread($0.place) == outcome.loopThread })
      let times = request.places.map(\.place.time)
      #expect(times == times.sorted(), "\(request)")
    }
    #expect(!outcome.events(.interrupt, thread: outcome.loopThread).isEmpty)
  }
}
