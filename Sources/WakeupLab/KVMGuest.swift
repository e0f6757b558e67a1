// SPDX-License-Identifier: Apache-2.0
// The workload inside the test guest on KVM: the guest is told what to do by its command line, marks on the diagnostic
// port when its time begins and ends, and reports on the serial port.
import Assembly
import EventLoop
import GuestDrivers
import GuestImages
import HostSystem
import Machine
import Platform
import Synchronization
import Tracing

/// Listens on a PC's diagnostic port for the marks of the thinking load: what is counted and traced lies between them.
final class ThinkMarks: PortDevice {
  // Machine lock held: the marks are written by a vCPU, and the rest is read when the machine has ended.
  private let loop: EventLoop
  private let traces: Bool
  private var before: WakeStatistics?
  private var startNs: UInt64 = 0
  private(set) var isComplete = false
  /// Between the marks, nanoseconds by the host's clock.
  private(set) var elapsedNs: UInt64 = 0
  /// Between the marks.
  private(set) var eventWrites: UInt64 = 0
  private(set) var wakeups: UInt64 = 0

  init(loop: EventLoop, traces: Bool) {
    self.loop = loop
    self.traces = traces
    super.init(name: "think-marks", firstPort: ThinkMark.port, portCount: 1)
  }

  override func portWrite(offset: Int, width: Int, value: UInt32) {
    switch UInt8(truncatingIfNeeded: value) {
    case ThinkMark.begin: begin()
    case ThinkMark.end: end()
    default: break
    }
  }

  private func begin() {
    if traces { Tracing.start() }
    before = loop.wakeStatistics
    startNs = HostClock.nanoseconds
  }

  private func end() {
    guard let before, !isComplete else { return }
    elapsedNs = HostClock.nanoseconds - startNs
    let after = loop.wakeStatistics
    eventWrites = after.eventWrites - before.eventWrites
    wakeups = after.wakeups - before.wakeups
    if traces { Tracing.stop() }
    isComplete = true
  }
}

/// One run of the thinking load in the test guest on KVM.
struct KVMGuestRun {
  /// What the machine is made of.
  var configuration: MachineConfiguration
  /// What the guest reads from.
  var device: ThinkOptions.Device
  /// What it does.
  var parameters: ThinkingParameters
  /// Whether a trace is made between the marks.
  var traces: Bool

  /// The words that tell the guest.
  var commandLine: String {
    let name =
      switch device {
      case .ahci: "ahci"
      case .virtio: "virtio"
      case .none: "none"
      }
    return "load=think device=\(name) bytes=\(parameters.totalBytes) request=\(parameters.requestBytes)"
      + " batch=\(parameters.batchCount) batch-think=\(parameters.batchThinkNs)"
      + " completion-think=\(parameters.completionThinkNs)"
  }

  /// Boots the guest, and returns when its machine has been taken down. Main thread.
  /// - Returns: what the host measured between the marks, and what the guest says itself.
  /// - Throws: why there is no machine, or what the guest said when it gave up.
  func run() throws -> (figures: WakeupFigures, report: ThinkReport) {
    let serial = MemorySink()
    let assembled = try AssembledMachine(configuration, serial: serial)
    let marks = ThinkMarks(loop: assembled.machine.mainLoop, traces: traces)
    assembled.machine.add(marks)
    let fault = Fault()
    try assembled.useKVM(kernel: GuestImage.testguest, commandLine: commandLine, processorCount: 1) { what in
      fault.text.withLock { $0 = what }
    }
    // A guest that ends early leaves the trace running.
    defer { if traces { Tracing.stop() } }
    let ending = try assembled.run()
    if let text = fault.text.withLock({ $0 }) { throw WakeupError("the guest stopped: \(text)") }
    guard case .guestExit = ending else { throw WakeupError("the guest ended before its load did") }
    let report = try ThinkReport(parsing: serial.text)
    guard marks.isComplete else { throw WakeupError("the guest ended without its marks") }
    guard report.failureCount == 0 else { throw WakeupError("\(report.failureCount) of the guest's requests failed") }
    var figures = WakeupFigures()
    figures.seconds = Double(marks.elapsedNs) / 1e9
    figures.requestCount = report.requestCount
    figures.eventWrites = marks.eventWrites
    figures.wakeups = marks.wakeups
    return (figures, report)
  }

  private final class Fault: Sendable {
    let text = Mutex<String?>(nil)
  }
}

extension WakeupRun {
  /// A scenario with the guest on KVM.
  func runOnKVM(_ scenario: WakeupScenario) throws -> (figures: WakeupFigures, trace: Trace) {
    let guest = KVMGuestRun(
      configuration: configuration(of: scenario), device: scenario.interface == .ahci ? .ahci : .virtio,
      parameters: parameters, traces: true)
    do {
      return (try guest.run().figures, Tracing.collect())
    } catch let error as WakeupError {
      throw WakeupError("\(scenario.id): \(error)")
    }
  }

  /// The same thoughts without any I/O, in the same guest.
  func floorSecondsOnKVM() throws -> Double {
    var configuration = MachineConfiguration()
    configuration.memoryBytes = Self.memoryBytes
    do {
      return try KVMGuestRun(
        configuration: configuration, device: .none, parameters: parameters, traces: false
      ).run().figures.seconds
    } catch let error as WakeupError {
      throw WakeupError("wakeup/floor: \(error)")
    }
  }
}
