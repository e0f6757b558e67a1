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
    let monitors = try plan.monitors.map { endpoint throws(UsageError) in
      try endpoint.monitorAddress(option: "-qmp")
    }
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
    try tellFirmware(plan)
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
    tellFirmwareOfDisks(plan, control.drives)
    tellFirmwareOfGeometries(control)
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
    configuration.firstDiskSlot = plan.firstDiskSlot
    configuration.debugExitPort = plan.debugExitPort
    if let name = plan.removableController {
      configuration.controllerName = name
      configuration.hasRemovableController = true
    }
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
    case .null, .unix, .loopback, .descriptor: return MemorySink()
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

  /// Where a PC's firmware looks for what to boot, in the clock's memory.
  private enum BootMemory {
    /// What the machine has: a floating-point unit and a port for a mouse.
    static let equipment = (address: 0x14, value: UInt8(0x06))
    static let third = 0x38
    static let others = 0x3d
  }

  /// Puts what a firmware is told where it looks, as QEMU does.
  private func tellFirmware(_ plan: QEMUPlan) throws {
    let (firmware, clock, boot) = (assembled.firmware, assembled.clock, plan.boot)
    let machine = assembled.machine
    do throws(FirmwareFileError) {
      machine.lock.lock()
      defer { machine.lock.unlock() }
      firmware.add(key: FirmwareConfig.Key.uuid, bytes: plan.uuid)
      firmware.add(key: FirmwareConfig.Key.bootMenu, bytes: [boot.hasMenu ? 1 : 0, 0])
      try firmware.add(file: "etc/boot-fail-wait", bytes: Self.bytes(UInt32(truncatingIfNeeded: boot.retryMs)))
      if let splash = boot.splashMs {
        try firmware.add(file: "etc/boot-menu-wait", bytes: Self.bytes(UInt16(splash)))
      }
      clock.keep([BootMemory.equipment.value], at: BootMemory.equipment.address)
      Self.keep(boot.codes(atFirstStart: true), in: clock)
      guard boot.once != nil else { return }
      machine.events.observe { [weak clock] event in
        if case .reset = event, let clock { Self.keep(boot.codes(atFirstStart: false), in: clock) }
      }
    } catch {
      throw SetupError("-boot: \(error)")
    }
  }

  private static func keep(_ codes: (third: UInt8, others: UInt8), in clock: RealTimeClock) {
    clock.keep([codes.third], at: BootMemory.third)
    clock.keep([codes.others], at: BootMemory.others)
  }

  /// The older PC has two channels with two disks each; of q35's ports, which have one, the first two count.
  private func tellFirmwareOfDisks(_ plan: QEMUPlan, _ reports: [DriveReport]) {
    var disks = [FirmwareDisk?](repeating: nil, count: FirmwareDisk.disksMax)
    for drive in plan.drives where drive.interface == .ahci && drive.media == .disk {
      guard let port = drive.port, let medium = reports.first(where: { $0.name == drive.id })?.medium else { continue }
      let index = plan.board == .pc ? port : 2 * port
      guard disks.indices.contains(index) else { continue }
      var start: [UInt8] = []
      if case .file(let path) = drive.source {
        start = (try? readStart(of: path, byteCount: FirmwareDisk.sectorBytes)) ?? []
      }
      disks[index] = FirmwareDisk(
        sectorCount: medium.byteCount / UInt64(FirmwareDisk.sectorBytes), firstSector: start, geometry: drive.geometry,
        translation: drive.translation.flatMap(FirmwareDisk.Translation.init(named:)))
    }
    assembled.machine.lock.withLock {
      for (address, bytes) in FirmwareDisk.memory(of: disks) { assembled.clock.keep(bytes, at: address) }
    }
  }

  private static func bytes<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
    withUnsafeBytes(of: number.littleEndian) { Array($0) }
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
      case .loopback(let port, let listens, _):
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
}
