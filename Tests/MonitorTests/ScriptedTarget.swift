// SPDX-License-Identifier: Apache-2.0
import Assembly
import Block
import EventLoop
import GuestMemory
import Machine

/// A machine that does what the test says, and notes what it was asked.
final class ScriptedTarget: MonitorTarget {
  let loop: EventLoop
  var machineName: String?
  var shape = MachineShape.q35
  var usesKVM = false
  var runState = RunState.running
  var shutdownReason: ShutdownReason?
  var drives = [ScriptedTarget.disk, ScriptedTarget.cdrom]
  var nodes: [NodeReport] = []
  var pciFunctions: [PCIFunction] = []
  var engineNotes = ["drive d0: aio=io_uring: it works"]
  /// What was asked for, a line each.
  var log: [String] = []
  /// What the next operation fails with.
  var error: ControlError?
  /// What waits for the test to finish it.
  var waiting: [() -> Void] = []
  /// Bytes that a transfer reads.
  var bytes: [UInt8] = []
  private var observers: [(MachineEvent) -> Void] = []

  static let disk = DriveReport(
    name: "d0", deviceID: "v0", model: "virtio-blk-pci",
    medium: NodeReport(name: "#block000", filename: "a.img", byteCount: 1 << 20))
  static let cdrom = DriveReport(
    name: "", deviceID: "cd0", model: "ide-cd", tray: TrayReport(),
    medium: NodeReport(name: "n0", filename: "b.iso", byteCount: 4096, isReadOnly: true))

  init(loop: EventLoop) { self.loop = loop }

  func observe(_ observer: @escaping (MachineEvent) -> Void) { observers.append(observer) }
  func post(_ event: MachineEvent) { for observer in observers { observer(event) } }

  /// Answers what waits.
  func finishWaiting() {
    let all = waiting
    waiting = []
    for answer in all { answer() }
  }

  private func note(_ line: String) throws(ControlError) {
    log.append(line)
    guard let error else { return }
    self.error = nil
    throw error
  }

  // MARK: Running

  func stop() {
    log.append("stop")
    guard runState == .running else { return }
    runState = .paused
    post(.stopped)
  }

  func cont() throws(ControlError) {
    try note("cont")
    runState = .running
    post(.resumed)
  }

  var processorCount = 2
  func setPolicies(reset: ResetPolicy?, shutdown: ShutdownPolicy?) throws(ControlError) {
    try note("policies \(reset.map { "\($0)" } ?? "-") \(shutdown.map { "\($0)" } ?? "-")")
  }

  func reset(done: @escaping () -> Void) throws(ControlError) {
    try note("reset")
    waiting.append { [self] in
      post(.reset(byGuest: false))
      done()
    }
  }

  func powerDown() throws(ControlError) {
    try note("powerdown")
    post(.powerdown)
  }

  func quit(done: @escaping () -> Void) {
    log.append("quit")
    shutdownReason = .hostRequest
    waiting.append { [self] in
      post(.shutdown(.hostRequest))
      done()
    }
  }

  // MARK: Drives

  func statistics(_ answer: @escaping ([DriveStatistics]) -> Void) {
    var counts = BlockStatistics()
    counts.reads = 3
    counts.readBytes = .max
    answer(drives.map { DriveStatistics(name: $0.name, deviceID: $0.deviceID, counts: counts) })
  }

  private func move(_ drive: DriveReference, open: Bool) throws(ControlError) {
    guard let index = drives.firstIndex(where: { $0.deviceID == drive.name || $0.name == drive.name }) else {
      throw .noDevice(drive.name)
    }
    guard let tray = drives[index].tray else { throw ControlError("Device '\(drive.name)' is not removable") }
    guard tray.isOpen != open else { return }
    drives[index].tray?.isOpen = open
    post(.trayMoved(device: drives[index].deviceID, isOpen: open))
  }

  func openTray(of drive: DriveReference, force: Bool) throws(ControlError) {
    try note("open \(drive) force=\(force)")
    if !force, drives.contains(where: { $0.deviceID == drive.name && $0.tray?.isLocked == true }) {
      throw ControlError.locked(drive.name)
    }
    try move(drive, open: true)
  }

  func closeTray(of drive: DriveReference) throws(ControlError) {
    try note("close \(drive)")
    try move(drive, open: false)
  }

  func addDrive(_ drive: DriveConfiguration) throws(ControlError) {
    try note("add-drive \(drive.id) \(drive.source)")
  }

  func removeDrive(named name: String) throws(ControlError) { try note("remove-drive \(name)") }

  func removeMedium(of drive: DriveReference) throws(ControlError) { try note("remove \(drive)") }

  func insertMedium(node: String, into drive: DriveReference) throws(ControlError) {
    try note("insert \(node) \(drive)")
  }

  func changeMedium(of drive: DriveReference, to image: DriveConfiguration, force: Bool) throws(ControlError) {
    try note("change \(drive) \(image.source) force=\(force)")
  }

  var added: DriveConfiguration?
  func addNode(_ configuration: DriveConfiguration) throws(ControlError) {
    try note("add node \(configuration.id)")
    added = configuration
  }

  func addNode(named name: String, over lower: String, isReadOnly: Bool) throws(ControlError) {
    try note("add node \(name) over \(lower) read-only=\(isReadOnly)")
  }

  func removeNode(named name: String) throws(ControlError) { try note("remove node \(name)") }

  func resize(drive: String?, node: String?, to byteCount: UInt64, done: @escaping (ControlError?) -> Void) {
    log.append("resize \(drive ?? "-") \(node ?? "-") \(byteCount)")
    let error = error
    waiting.append { done(error) }
  }

  var limits: ThrottleLimits?
  func setLimits(
    of drive: DriveReference, to limits: ThrottleLimits, done: @escaping () -> Void
  ) throws(ControlError) {
    try note("limit \(drive)")
    self.limits = limits
    waiting.append(done)
  }

  func transfer(
    _ transfer: HostTransfer, drive: String, done: @escaping (Result<[UInt8], ControlError>) -> Void
  ) {
    log.append("\(transfer.operation) \(drive) \(transfer.offset) \(transfer.byteCount) \(transfer.pattern)")
    let result: Result<[UInt8], ControlError> = error.map { .failure($0) } ?? .success(bytes)
    waiting.append { done(result) }
  }

  func debug(_ command: BreakpointCommand, drive: String, done: @escaping (ControlError?) -> Void) {
    log.append("\(command) \(drive)")
    let error = error
    waiting.append { done(error) }
  }

  func drain(node: String, done: @escaping (ControlError?) -> Void) {
    log.append("drain \(node)")
    let error = error
    waiting.append { done(error) }
  }

  func letWaitingGo() { log.append("let go") }

  // MARK: Devices

  func addDevice(model: String, options: [String: String]) throws(ControlError) {
    let text = options.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ",")
    try note("add \(model) \(text)")
  }

  func removeDevice(id: String) throws(ControlError) { try note("remove \(id)") }

  var devices: [DeviceReport] { drives.map { DeviceReport(id: $0.deviceID, model: $0.model, bus: "pcie.0") } }

  var loops: [LoopReport] {
    [LoopReport(name: "main", policy: .elided, monitor: .poll, wakes: loop.wakeStatistics)]
  }
}
