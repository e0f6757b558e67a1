// SPDX-License-Identifier: Apache-2.0
import Block
import CLinux
import EventLoop
import Glibc
import GuestMemory
import Machine

/// A port of the controller: its registers, its two engines (command list and received FISes), and the device behind it.
///
/// Everything is guarded by the machine lock: registers are written by vCPUs' threads, completions come on the main loop.
/// The port's file is about what runs and what stops; registers, commands and completions are in extensions.
///
/// Whenever a guest stops or resets something, requests may be with the block layer. They are abandoned: what comes back
/// is dropped, and the port does not say that it has stopped (PxCMD.CR, GHC.HR, PxSSTS) before the last one is back. So
/// nothing late reaches guest memory, and a slot is never used for two requests.
final class AHCIPort: SATALink {
  /// The port's number.
  let number: Int
  unowned(unsafe) let controller: AHCIController
  let memory: GuestMemory
  // The machine's main loop, which outlives the port; unmanaged so that a doorbell counts no reference.
  unowned(unsafe) let loop: EventLoop
  let guestErrors: GuestErrorLog
  let slots: UnsafeMutablePointer<CommandSlot>
  private let requests: UnsafeMutablePointer<BlockRequest>
  private let iovecs: UnsafeMutablePointer<iovec>

  // MARK: Registers

  var commandListAddress: UInt64 = 0
  var receivedFISAddress: UInt64 = 0
  /// PxIS but for the bits that follow PxSERR.
  var interruptStatus: UInt32 = 0
  var interruptEnable: UInt32 = 0
  /// The writable bits of PxCMD.
  var command: UInt32 = 0
  var taskFileStatus = noDeviceStatus, taskFileError: UInt8 = 0
  var signature = noSignature
  var sataStatus: UInt32 = 0
  var sataControl: UInt32 = 0
  var sataError: UInt32 = 0
  var sataActive: UInt32 = 0
  var commandIssue: UInt32 = 0
  var notification: UInt32 = 0

  // MARK: What runs

  /// The command list in host memory while it is processed (PxCMD.CR); nil else.
  var list: UnsafeMutableRawPointer?
  /// The received FIS area in host memory while FISes are accepted (PxCMD.FR); nil else.
  var received: UnsafeMutableRawPointer?
  /// What is behind the port.
  private(set) var device: SATADevice? {
    didSet { deviceReference = device.map { Unmanaged.passUnretained($0) } }
  }
  /// The same object, for the hot path, which counts no references.
  private(set) var deviceReference: Unmanaged<SATADevice>?
  /// The device has been reset and its signature has not been delivered.
  var signaturePending = false
  /// An error stopped the command list; only PxCMD.ST = 0 or a reset gets it going again (§6.2.2).
  var isHalted = false
  /// The slot of the command that is under way and not queued.
  var current: Int?
  /// Queued commands under way, and those that are done and not published.
  var queued: UInt32 = 0, finished: UInt32 = 0
  /// The slot taken last (CCS).
  var lastSlot = 0
  /// SRST is set in the device's control register (SATA 3.3 §11.4).
  var isInSoftReset = false
  /// Requests with the block layer, abandoned ones included.
  var lentCount = 0
  /// What is to be done when no request is out any more.
  var afterDrain: Drain = []
  /// A device that was taken away while requests were out.
  private var leaving: SATADevice?
  /// `takeCommands` is at work further up the stack.
  var isTaking = false
  private(set) var publisher: Publisher!

  /// What PxTFD shows before a device has sent its signature, and what PxSIG does (§3.3.8, §3.3.9).
  static let noDeviceStatus: UInt8 = 0x7f
  static let noSignature: UInt32 = 0xffff_ffff

  /// What waits until no request is out.
  struct Drain: OptionSet {
    let rawValue: Int
    /// The command list has stopped (CR becomes 0).
    static let stopped = Drain(rawValue: 1)
    /// COMRESET is over.
    static let linkReset = Drain(rawValue: 2)
    /// A software reset is over.
    static let softReset = Drain(rawValue: 4)
    /// The controller's reset is over, as far as this port goes.
    static let controllerReset = Drain(rawValue: 8)
    /// A device that was taken away can be let go.
    static let removal = Drain(rawValue: 16)
  }

  /// Publishes queued commands that are done at the end of the batch: one FIS and one interrupt for all of them.
  final class Publisher: DeferredCall {
    unowned(unsafe) let port: AHCIPort
    init(port: AHCIPort) {
      self.port = port
      super.init(loop: port.loop)
    }
    override func run() { port.publishFinished() }
  }

  init(number: Int, controller: AHCIController, memory: GuestMemory, loop: EventLoop, guestErrors: GuestErrorLog) {
    self.number = number
    self.controller = controller
    self.memory = memory
    self.loop = loop
    self.guestErrors = guestErrors
    slots = .allocate(capacity: Limit.slots)
    requests = .allocate(capacity: Limit.slots)
    // calloc: pages of slots that are never used are never touched, so they cost no resident memory.
    iovecs = calloc(Limit.slots * Limit.iovecsPerSlot, MemoryLayout<iovec>.stride)!
      .assumingMemoryBound(to: iovec.self)
    super.init()
    requests.initialize(repeating: BlockRequest(), count: Limit.slots)
    for index in 0..<Limit.slots {
      requests[index].slot = Int32(index)
      requests[index].client = Unmanaged.passUnretained(self)
      let room = iovecs + index * Limit.iovecsPerSlot
      (slots + index).initialize(to: CommandSlot(number: index, request: requests + index, iovecs: room))
    }
    publisher = Publisher(port: self)
  }

  deinit {
    slots.deallocate()
    requests.deallocate()
    free(iovecs)
  }

  // MARK: The link, from the device's side

  override func finish(_ slot: UnsafeMutablePointer<CommandSlot>) { end(slot) }

  override func transfer(
    _ operation: BlockOperation, of backend: BlockBackend, offset: UInt64, byteCount: UInt64, durable: Bool,
    for slot: UnsafeMutablePointer<CommandSlot>
  ) { beginTransfer(operation, of: backend, offset: offset, byteCount: byteCount, durable: durable, for: slot) }

  override func submit(to backend: BlockBackend, for slot: UnsafeMutablePointer<CommandSlot>) {
    slot.pointee.isMoving = false
    lend(slot, to: backend)
  }

  override func completed(_ request: UnsafeMutablePointer<BlockRequest>) { returned(request) }

  override func send(_ bytes: UnsafeRawBufferPointer, for slot: UnsafeMutablePointer<CommandSlot>) -> Int {
    copy(bytes.count, slot) { guest, offset, count in memcpy(guest, bytes.baseAddress! + offset, count) }
  }

  override func receive(
    into bytes: UnsafeMutableRawBufferPointer, for slot: UnsafeMutablePointer<CommandSlot>
  ) -> Int {
    copy(bytes.count, slot) { guest, offset, count in memcpy(bytes.baseAddress! + offset, guest, count) }
  }

  override func report(_ message: @autoclosure () -> String) { guestErrors.report("port \(number): \(message())") }

  // MARK: The device

  /// Puts a device behind the port, as at power-on: no register tells of a change.
  func plug(_ device: SATADevice) {
    self.device = device
    device.linkReference = Unmanaged.passUnretained(self)
    resetRegisters()
  }

  /// A device is put behind the port of a running machine (§7.3).
  func hotPlug(_ device: SATADevice) {
    self.device = device
    device.linkReference = Unmanaged.passUnretained(self)
    if sataControl & PortSATA.detectionMask != 0 { return }
    linkCameUp()
    noteLinkChange()
  }

  /// The device goes (§7.3): what it was working on never ends, until the guest resets the port.
  func hotUnplug() {
    guard device != nil else { return }
    abandonCommands()
    leaving = device
    device = nil
    linkWentDown()
    noteLinkChange()
    drain(.removal)
  }

  /// The device's disk may be at work on the very completion that was the last one, so it goes in the loop's next round.
  private func letGo() {
    nonisolated(unsafe) let gone = leaving
    leaving = nil
    loop.execute { withExtendedLifetime(gone) {} }
  }

  private func noteLinkChange() {
    sataError |= PortError.phyReadyChange | PortError.exchanged
    controller.portChanged(self)
  }

  private func linkCameUp() {
    sataStatus = PortSATA.linkUp
    device?.hardReset()
    signaturePending = device != nil
    deliverSignature()
  }

  private func linkWentDown() {
    // What is left in the list belongs to a time that is over; the guest restarts the list (§10.4.2).
    isHalted = list != nil
    sataStatus = 0
    taskFileStatus = Self.noDeviceStatus
    taskFileError = 0
    signature = Self.noSignature
    signaturePending = false
  }

  // MARK: Engines

  /// Follows PxCMD.ST and FRE (§10.3). Nothing starts while requests of an earlier time are out, or while the controller
  /// may not reach guest memory (§2.1.2: without CMD.BME the engines are idle).
  func updateEngines() {
    if command & PortCommand.receiveEnable == 0 {
      received = nil
    } else if received == nil, controller.isBusMaster {
      startReceiving()
    }
    if command & PortCommand.start == 0 {
      stopList()
    } else if list == nil, controller.isBusMaster, lentCount == 0 || !hasAbandoned {
      startList()
    }
    takeCommands()
  }

  private func startReceiving() {
    guard let area = memory.pointer(at: receivedFISAddress & ~0xff, byteCount: PortLayout.receivedBytes) else {
      report("PxFB \(hexadecimal(receivedFISAddress)) is not in guest memory; FIS receive does not start")
      command &= ~PortCommand.receiveEnable
      return raise(PortInterrupt.hostBusFatal)
    }
    received = area
    deliverSignature()
  }

  private func startList() {
    guard let area = memory.pointer(at: commandListAddress & ~0x3ff, byteCount: PortLayout.listBytes) else {
      report("PxCLB \(hexadecimal(commandListAddress)) is not in guest memory; the command list does not start")
      command &= ~PortCommand.start
      return raise(PortInterrupt.hostBusFatal)
    }
    list = area
    isHalted = false
    lastSlot = Limit.slots - 1
  }

  /// PxCMD.ST is 0 (§3.3.7, §5.3.2.3): PxCI and PxSACT are cleared at once; CR when nothing is out any more.
  private func stopList() {
    guard list != nil, !afterDrain.contains(.stopped) else { return }
    abandonCommands()
    commandIssue = 0
    sataActive = 0
    drain(.stopped)
  }

  /// Whether PxCMD.CR shows that the list is being processed.
  var isListRunning: Bool { list != nil }

  // MARK: Resets

  /// The guest writes PxSCTL (§10.4.2): DET = 1 holds the link in reset, back at 0 the device is detected anew.
  func writeSATAControl(_ value: UInt32) {
    let before = sataControl & PortSATA.detectionMask
    sataControl = value & PortSATA.controlMask
    let now = sataControl & PortSATA.detectionMask
    if now == before { return }
    switch now {
    case PortSATA.detectionReset, PortSATA.detectionOffline:
      abandonCommands()
      linkWentDown()
      if now == PortSATA.detectionOffline { sataStatus = PortSATA.linkOffline }
    case 0 where before == PortSATA.detectionReset || before == PortSATA.detectionOffline:
      abandonCommands()
      linkWentDown()
      drain(.linkReset)
    default: break
    }
  }

  /// The guest sets or clears SRST by a FIS (SATA 3.3 §11.4): the device is reset when it is cleared again.
  func writeDeviceControl(_ control: UInt8) {
    let resets = control & 0x04 != 0
    if resets && !isInSoftReset {
      isInSoftReset = true
      abandonCommands()
      taskFileStatus = ATAStatus.busy
    } else if !resets && isInSoftReset {
      isInSoftReset = false
      drain(.softReset)
    }
  }

  /// GHC.HR: everything as after power-on, when nothing is out any more.
  func beginControllerReset() {
    abandonCommands()
    drain(.controllerReset)
  }

  /// Every register as it is after a reset (§3.3), the device detected.
  func resetRegisters() {
    commandListAddress = 0
    receivedFISAddress = 0
    interruptStatus = 0
    interruptEnable = 0
    command = 0
    sataControl = 0
    sataError = 0
    sataActive = 0
    commandIssue = 0
    notification = 0
    list = nil
    received = nil
    isInSoftReset = false
    lastSlot = 0
    linkWentDown()
    if device != nil { linkCameUp() }
  }

  /// Gives up every command under way.
  func abandonCommands() {
    for index in 0..<Limit.slots where slots[index].isExecuting {
      slots[index].isExecuting = false
      if slots[index].isLent { slots[index].isAbandoned = true } else { slots[index].freeBuffers() }
    }
    current = nil
    queued = 0
    finished = 0
    // Requests that wait for the machine to go on, or for their time, would keep the port from coming to rest.
    device?.backend?.giveUp()
    leaving?.backend?.giveUp()
  }

  private var hasAbandoned: Bool { (0..<Limit.slots).contains { slots[$0].isAbandoned } }

  /// Does `work` when no request is out: now, or with the last completion.
  func drain(_ work: Drain) {
    afterDrain.formUnion(work)
    if lentCount == 0 { drained() }
  }

  /// Whether registers tell of the end of something only when no request is out any more.
  var isSettling: Bool { !afterDrain.isSubset(of: .removal) }

  /// No request is out any more.
  func drained() {
    let work = afterDrain
    afterDrain = []
    defer { controller.portSettled() }
    if work.contains(.removal) { letGo() }
    if work.contains(.stopped) {
      list = nil
      lastSlot = 0
    }
    if work.contains(.controllerReset) {
      resetRegisters()
      controller.portWasReset()
      return
    }
    if work.contains(.linkReset), sataControl & PortSATA.detectionMask == 0 {
      isInSoftReset = false
      if device != nil {
        linkCameUp()
        noteLinkChange()
      }
    }
    if work.contains(.softReset), !isInSoftReset, sataStatus == PortSATA.linkUp {
      device?.softReset()
      signaturePending = true
      deliverSignature()
    }
    updateEngines()
  }

  /// Sends the register FIS that a device sends after a reset, where one is due and FISes are accepted.
  private func deliverSignature() {
    guard signaturePending, received != nil, let device else { return }
    signaturePending = false
    var registers = TaskFile()
    registers.status = device.signature == AHCIPort.atapiSignature ? 0 : ATAStatus.good
    registers.error = ATAError.diagnosticPassed
    registers.count = UInt16(device.signature & 0xff)
    registers.lba = UInt64(device.signature >> 8)
    signature = device.signature
    receiveRegisters(registers, interrupts: true)
    raise(PortInterrupt.registerFIS)
    takeCommands()
  }

  private static let atapiSignature: UInt32 = 0xeb14_0101
}

func hexadecimal(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }
