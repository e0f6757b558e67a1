// SPDX-License-Identifier: Apache-2.0
import Accelerators
import Assembly
import Glibc
import HostSystem
import Machine
import Monitor
import Platform

/// A machine that a QEMU command line has described, with its qtest client and its monitors.
///
/// Made and run on one thread, which becomes the main loop's.
public final class QEMUMachine {
  /// The machine.
  public let assembled: AssembledMachine
  private var monitors: [Monitor] = []
  private let startsPaused: Bool

  /// Puts the machine together: connects to its clients, opens its images.
  /// - Parameters:
  ///   - plan: what is wanted.
  ///   - program: the process's name, for the monitor.
  /// - Throws: one line, without the program's name.
  public convenience init(_ plan: QEMUPlan, program: String) throws {
    // A client that waits for its machine hears of mistakes in the plan by the end of the process, so it comes first.
    let channel = try plan.qtest.map { try Self.channel($0) }
    let monitors = try plan.monitors.map(Self.address)
    try self.init(plan, channel: channel, log: try Self.log(plan), monitors: monitors, announcesStops: true)
  }

  /// Puts the machine together around clients that are connected already, which own process uses it.
  /// - Parameter monitor: a connected socket; nil for none.
  public convenience init(_ plan: QEMUPlan, qtest: consuming OwnedDescriptor, monitor: Int32?) throws {
    let monitors = monitor.map { [MonitorAddress.descriptor($0)] } ?? []
    try self.init(plan, channel: QTestChannel(taking: qtest), log: nil, monitors: monitors, announcesStops: false)
  }

  private init(
    _ plan: QEMUPlan, channel: QTestChannel?, log: QTestLog?, monitors: [MonitorAddress], announcesStops: Bool
  ) throws {
    startsPaused = plan.startsPaused
    var configuration = try Self.configuration(plan)
    configuration.announcesStops = announcesStops
    assembled = try AssembledMachine(configuration, serial: try Self.serialSink(plan.serial))
    try addFirmwareFiles(plan)
    switch plan.accelerator {
    case .qtest: try useQTest(channel, log)
    case .kvm: try useKVM(plan)
    }
    if plan.endsAtReset { assembled.machine.resetPolicy = .shutdown }
    if plan.staysAtShutdown { assembled.machine.shutdownPolicy = .pause }
    let control = MachineControl(assembled, name: plan.name, shape: Self.shape(plan.board))
    for source in plan.spares {
      let isLower = plan.lowerNodes.values.contains(source.id)
      do throws(ControlError) { try control.addSource(source, isLower: isLower) } catch {
        throw SetupError("\(source.nodeName == source.id ? "-blockdev" : "-drive"): \(error)")
      }
    }
    control.connectNodes(plan.lowerNodes)
    var settings = MonitorSettings()
    settings.characterDevices = plan.characterDevices
    settings.option = "-qmp"
    settings.dialect = plan.dialect
    for address in monitors {
      let monitor = Monitor(target: control, address: address, settings: settings)
      try monitor.start()
      self.monitors.append(monitor)
    }
  }

  /// Runs the machine to its end, and closes everything.
  public func run() throws -> ShutdownReason {
    for monitor in monitors { monitor.waitForClient() }
    defer { monitors.forEach { $0.close() } }
    return try assembled.run(startsPaused: startsPaused)
  }

  // MARK: From the plan

  private static func configuration(_ plan: QEMUPlan) throws -> MachineConfiguration {
    var configuration = MachineConfiguration()
    configuration.memoryBytes = plan.memoryBytes
    configuration.processorCount = plan.processorCount
    configuration.drives = plan.drives
    configuration.debugExitPort = plan.debugExitPort
    guard let base = ClockBase(plan.clockBase) else {
      throw UsageError("-rtc base=\(plan.clockBase): write utc, localtime or a date such as 2026-02-28T12:00:00")
    }
    configuration.clockBase = base
    return configuration
  }

  private static func shape(_ board: QEMUPlan.Board) -> MachineShape {
    switch board {
    case .none: .none
    case .q35: .q35
    case .pc: .pc
    }
  }

  private static func serialSink(_ endpoint: Endpoint) throws -> SerialSink {
    switch endpoint {
    case .stdio: return DescriptorSink(borrowing: STDOUT_FILENO)
    case .file(let path):
      do throws(SystemError) { return try DescriptorSink(path: path) } catch {
        throw SetupError("-serial file:\(path): \(SystemError.text(of: error.code))")
      }
    case .null, .unix, .tcp, .descriptor: return MemorySink()
    }
  }

  private func addFirmwareFiles(_ plan: QEMUPlan) throws {
    for file in plan.firmwareFiles {
      let bytes: [UInt8]
      switch file.source {
      case .text(let text): bytes = Array(text.utf8)
      case .file(let path):
        do throws(SystemError) { bytes = try readWholeFile(path) } catch {
          throw SetupError("-fw_cfg \(file.name): \(path): \(SystemError.text(of: error.code))")
        }
      }
      do throws(FirmwareFileError) { try assembled.firmware.add(file: file.name, bytes: bytes) } catch {
        throw UsageError("-fw_cfg \(error)")
      }
    }
  }

  // MARK: Accelerators

  private func useQTest(_ channel: QTestChannel?, _ log: QTestLog?) throws {
    if let channel {
      assembled.useQTest(channel: channel, log: log)
    } else {
      // Nobody steps the clock, and a monitor is all there is.
      assembled.machine.resetPolicy = .resetDevices
    }
    _ = assembled.machine.lock.withLock { assembled.addBoardInterrupts() }
  }

  private func useKVM(_ plan: QEMUPlan) throws {
    guard let path = plan.kernel else {
      if plan.board == .none { return }
      throw UsageError("-kernel: is missing; name an ELF image with a PVH note, or use -accel qtest")
    }
    if case .unusable(let reason) = KVMAccelerator.probe() { throw SetupError("-accel kvm: \(reason)") }
    let image: [UInt8]
    do throws(SystemError) { image = try readWholeFile(path) } catch {
      throw SetupError("-kernel \(path): \(SystemError.text(of: error.code))")
    }
    do {
      try assembled.useKVM(kernel: image, commandLine: plan.commandLine, processorCount: plan.processorCount) { what in
        StandardError.print("qemu-system-x86_64: the guest stopped: \(what)")
      }
    } catch let error as BootError {
      throw SetupError("-kernel \(path): \(error)")
    }
  }

  // MARK: Clients

  private static func channel(_ endpoint: Endpoint) throws -> QTestChannel {
    do throws(QTestError) {
      switch endpoint {
      case .unix(let path, let listens, _): return try QTestChannel(opening: .unix(path: path, isServer: listens))
      case .tcp(let host, let port, let listens, _):
        guard Self.isLoopback(host) else { throw QTestError("tcp:\(host): only 127.0.0.1 is allowed") }
        return try QTestChannel(opening: .loopback(port: port, isServer: listens))
      case .stdio: return try QTestChannel(opening: .standardStreams)
      case .descriptor(let number): return QTestChannel(taking: OwnedDescriptor(taking: number))
      case .file, .null: throw QTestError("a client speaks over a socket or stdio")
      }
    } catch {
      throw SetupError("-qtest: \(error)")
    }
  }

  private static func log(_ plan: QEMUPlan) throws -> QTestLog? {
    guard let path = plan.qtestLog else { return nil }
    do throws(QTestError) { return try QTestLog(path: path) } catch { throw SetupError("-qtest-log \(error)") }
  }

  private static func isLoopback(_ host: String) -> Bool { ["127.0.0.1", "localhost"].contains(host) }

  private static func address(_ endpoint: Endpoint) throws(SetupError) -> MonitorAddress {
    switch endpoint {
    case .unix(let path, let listens, let waits):
      return listens ? .listenUnix(path: path, waits: waits) : .connectUnix(path: path)
    case .tcp(let host, let port, let listens, let waits):
      guard isLoopback(host) else { throw SetupError("-qmp tcp:\(host): only 127.0.0.1 is allowed") }
      return listens ? .listenLoopback(port: port, waits: waits) : .connectLoopback(port: port)
    case .stdio: return .standardIO
    case .descriptor(let number): return .descriptor(number)
    case .file, .null: throw SetupError("-qmp: a monitor's client speaks over a socket or stdio")
    }
  }
}
