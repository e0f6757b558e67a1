// SPDX-License-Identifier: Apache-2.0
import Block
import CLinux
import EventLoop
import GuestMemory
import HostSystem
import Machine
import Synchronization
import Tracing

/// A virtio-blk PCI function (1af4:1042, or 1af4:1001 where legacy drivers find it): the device's state and life cycle.
/// Registers are in `VirtioPCITransport` and `VirtioLegacyPorts`, the data path in `VirtioBlockQueue`.
///
/// Registers change under the machine lock. Queues run on the backend's loop, which is the main loop (and then holds
/// the machine lock as well) or an I/O thread's; the two meet only in the atomics below and through the loop.
public final class VirtioBlockDevice: PCIFunction, @unchecked Sendable {
  let backend: BlockBackend
  let memory: GuestMemory
  /// How it was set up.
  public let options: VirtioBlockOptions
  let guestErrors: GuestErrorLog
  private(set) var queues: [VirtioBlockQueue] = []

  // Registers of the transport, guarded by the machine lock.
  var queueRegisters: [QueueRegisters]
  let offeredFeatures: UInt64
  var driverFeatures: UInt64 = 0

  /// Device status. Written under the machine lock, except that a loop sets NEEDS_RESET.
  private let status = Atomic<UInt8>(0)
  /// ISR status (virtio 1.3 §4.1.4.5): set by loops, read and cleared by the guest.
  let interruptStatus = Atomic<UInt8>(0)
  /// No request is in flight and none will be taken. Set false under the machine lock before the loop is told to stop,
  /// true by the loop (releasing) when the last completion has been dropped; acquired by whoever acts on it.
  private let quiet = Atomic<Bool>(true)
  /// Counts resets, so that a start that was on its way to the loop when the guest reset the device does nothing.
  private let resetCount = Atomic<Int>(0)
  /// What the status register shows while a reset waits for requests in flight (never 0).
  private var statusBeforeReset: UInt8 = 0
  /// The device configuration has changed since the guest last read of it. Set by the loop, taken under the machine lock.
  private let hasChanged = Atomic<Bool>(false)
  /// What the guest reads as config_generation (§4.1.4.3.1). It goes on when a change is read, not when it happens, so that
  /// no number of changes brings back a value under which another configuration was read. Machine lock.
  private(set) var configurationGeneration: UInt8 = 0
  /// MSI-X vectors: of the configuration, then of each queue. Written under the machine lock, read by loops.
  let vectors: UnsafeMutablePointer<UInt16>

  private(set) var transport: VirtioPCITransport!
  /// The registers of a device that is not on the PCI bus.
  private(set) var mmioRegisters: RegisterBlock?
  /// Whether the queues serve the driver since its last reset. Machine lock.
  private(set) var hasStarted = false
  /// A start that waits for the requests of the time before a reset. On the loop.
  private var startWhenQuiet: (() -> Void)?
  // Between `quiesce` and `resume`. On the loop.
  private var isDraining = false
  /// Where the registers' BAR is mapped now. Machine lock.
  private var registersBase: UInt64?

  /// Registers of one queue (virtio 1.3 §4.1.4.3).
  struct QueueRegisters {
    var size: UInt16
    var descriptors: UInt64 = 0
    var available: UInt64 = 0
    var used: UInt64 = 0
    var isEnabled = false
  }

  /// "No vector" in an MSI-X vector register.
  static let noVector: UInt16 = 0xffff

  /// Makes the device; it serves `backend` once it is attached to a machine.
  public init(
    name: String, address: PCIAddress, backend: BlockBackend, memory: GuestMemory,
    options: VirtioBlockOptions = VirtioBlockOptions()
  ) throws(SystemError) {
    precondition((1...Limit.queuesMax).contains(options.queueCount))
    precondition(options.queueEntries >= 2 && options.queueEntries <= Limit.queueEntriesMax)
    precondition(options.queueEntries & (options.queueEntries - 1) == 0)
    precondition(
      options.mmioSlot.map { VirtioMMIO.lines.indices.contains($0) && options.interface != .transitional } ?? true)
    self.backend = backend
    self.memory = memory
    self.options = options
    guestErrors = GuestErrorLog(device: name, linesMax: Limit.guestErrorLinesMax)
    queueRegisters = Array(repeating: QueueRegisters(size: options.queueEntries), count: options.queueCount)
    vectors = .allocate(capacity: options.queueCount + 1)
    vectors.initialize(repeating: Self.noVector, count: options.queueCount + 1)
    var features =
      Feature.segMax | Feature.blkSize | Feature.flush | Feature.topology | Feature.configWCE
      | Feature.indirectDescriptors | Feature.eventIndex
    if options.interface.isModern { features |= Feature.version1 }
    if options.geometry != nil { features |= Feature.geometry }
    if backend.isReadOnly { features |= Feature.readOnly }
    if backend.supportsDiscard && !backend.isReadOnly { features |= Feature.discard }
    if backend.supportsWriteZeroes && !backend.isReadOnly { features |= Feature.writeZeroes }
    if options.queueCount > 1 { features |= Feature.multiQueue }
    offeredFeatures = features
    super.init(name: name, address: address, identity: options.interface.identity)
    for index in 0..<options.queueCount {
      queues.append(
        try VirtioBlockQueue(
          index: index, device: self, backend: backend, memory: memory, entriesMax: options.queueEntries))
    }
    transport = makeTransport()
    if options.mmioSlot != nil {
      mmioRegisters = makeMMIORegisters()
      queues.forEach { $0.setBusMaster(true) }
    }
    backend.onResize = { [weak self] in self?.capacityChanged() }
  }

  deinit { vectors.deallocate() }

  // MARK: Status register (virtio 1.3 §2.1)

  /// What the guest reads: 0 after a reset only when nothing is in flight any more (§2.4.1).
  var statusRegister: UInt8 {
    let value = status.load(ordering: .relaxed)
    if value == 0 && !quiet.load(ordering: .acquiring) { return statusBeforeReset }
    return value
  }

  /// The guest writes the status register. Machine lock held.
  func writeStatus(_ value: UInt8) {
    if value == 0 {
      resetFromGuest()
      return
    }
    let old = status.load(ordering: .relaxed)
    var new = value | (old & DeviceStatus.needsReset)
    if new & DeviceStatus.featuresOK != 0 && old & DeviceStatus.featuresOK == 0 && !featuresAcceptable {
      // The driver must see that FEATURES_OK did not stick (§3.1.1 step 6).
      new &= ~DeviceStatus.featuresOK
    }
    if new & ~old & DeviceStatus.featuresOK != 0 && negotiated(Feature.configWCE) && !negotiated(Feature.flush) {
      // A driver that chooses the cache's mode but cannot flush begins with a write-through disk (§5.2.5.2).
      backend.writeCacheEnabled = false
    }
    status.store(new, ordering: .relaxed)
    let starts = new & DeviceStatus.driverOK != 0 && old & DeviceStatus.driverOK == 0
    if starts && new & (DeviceStatus.featuresOK | DeviceStatus.needsReset) == DeviceStatus.featuresOK { start() }
  }

  /// A legacy driver writes the status register: its interface has no FEATURES_OK (§3.1.2). Machine lock held.
  func writeLegacyStatus(_ value: UInt8) {
    if value == 0 {
      resetFromGuest()
      return
    }
    let new = value | (status.load(ordering: .relaxed) & DeviceStatus.needsReset)
    status.store(new, ordering: .relaxed)
    // Drivers of old (Linux before 2.6.34) never set it; QEMU sets it for them as well.
    if new & DeviceStatus.driver != 0 && !isBusMaster && options.mmioSlot == nil { becomeBusMaster() }
    if new & (DeviceStatus.driverOK | DeviceStatus.needsReset) == DeviceStatus.driverOK { start() }
  }

  /// A queue made no sense since the last reset.
  var isBroken: Bool { status.load(ordering: .relaxed) & DeviceStatus.needsReset != 0 }

  /// Features may be written until FEATURES_OK (§2.2.1).
  var mayNegotiate: Bool { status.load(ordering: .relaxed) & DeviceStatus.featuresOK == 0 }

  private var featuresAcceptable: Bool {
    driverFeatures & ~offeredFeatures == 0 && driverFeatures & Feature.version1 != 0
  }

  func offers(_ feature: UInt64) -> Bool { offeredFeatures & feature != 0 }
  func negotiated(_ feature: UInt64) -> Bool { driverFeatures & feature != 0 }

  // MARK: Start and stop

  /// Serves the driver with what was negotiated, once after each reset. Machine lock held.
  func start() {
    if hasStarted { return }
    hasStarted = true
    // A driver that cannot flush gets a write-through disk (§5.2.6.2); one that can chooses by the writeback field.
    if !negotiated(Feature.flush) && !negotiated(Feature.configWCE) { backend.writeCacheEnabled = false }
    let rings = queueRegisters.map { queue in queue.isEnabled ? makeRing(queue) : nil }
    let context = requestContext
    let expected = resetCount.load(ordering: .relaxed)
    backend.loop.execute { [self] in startOnLoop(rings, context, expected) }
  }

  /// What a queue has to know of the disk; its length is looked up on the loop, where it may change.
  private var requestContext: VirtioBlkContext {
    VirtioBlkContext(
      capacitySectors: 0, isReadOnly: backend.isReadOnly,
      hasDiscard: negotiated(Feature.discard), hasWriteZeroes: negotiated(Feature.writeZeroes),
      serial: serialWords(backend.serial))
  }

  /// Serves a queue that is set up after the driver began to use the device. Machine lock held.
  private func startLate(_ index: Int) {
    guard let ring = makeRing(queueRegisters[index]) else { return }
    let context = requestContext
    let expected = resetCount.load(ordering: .relaxed)
    backend.loop.execute { [self] in
      guard resetCount.load(ordering: .acquiring) == expected else { return }
      let begin = { [unowned self] in
        var context = context
        context.capacitySectors = backend.byteCount / Limit.sectorBytes
        quiet.store(false, ordering: .releasing)
        queues[index].start(ring, context: context)
      }
      guard let earlier = startWhenQuiet else { return begin() }
      startWhenQuiet = {
        earlier()
        begin()
      }
    }
  }

  /// Begins to serve, as soon as the requests of the time before a reset are all back.
  private func startOnLoop(_ rings: [SplitQueue?], _ context: VirtioBlkContext, _ expected: Int) {
    guard resetCount.load(ordering: .acquiring) == expected else { return }
    if queues.contains(where: { $0.inFlight > 0 }) {
      // The driver did not wait for its reset; the last completion of the time before it comes back to this.
      startWhenQuiet = { [unowned self] in startOnLoop(rings, context, expected) }
      return
    }
    quiet.store(false, ordering: .releasing)
    var context = context
    // Here, because the disk changes its length on the loop.
    context.capacitySectors = backend.byteCount / Limit.sectorBytes
    for (queue, ring) in zip(queues, rings) {
      if let ring { queue.start(ring, context: context) }
    }
  }

  /// The disk has another length: a change of the device configuration (§5.2.6.2, §4.1.5.4). On the loop.
  private func capacityChanged() {
    queues.forEach { $0.setCapacity(sectors: backend.byteCount / Limit.sectorBytes) }
    // Pairs with the exchange of `configurationWasRead`: who takes the change reads the length that was set before it.
    hasChanged.store(true, ordering: .releasing)
    guard status.load(ordering: .relaxed) & DeviceStatus.driverOK != 0 else { return }
    // Drivers that look at the first bit alone are told as well, as QEMU does it; they find no used buffer.
    interruptConfiguration(status: 3)
  }

  /// The guest has read of the device configuration. Machine lock held.
  func configurationWasRead() {
    if hasChanged.exchange(false, ordering: .acquiringAndReleasing) { configurationGeneration &+= 1 }
  }

  func resetFromGuest() {
    stopQueues()
    clearRegisters()
  }

  private func clearRegisters() {
    let old = status.exchange(0, ordering: .relaxed)
    statusBeforeReset = old == 0 ? DeviceStatus.failed : old
    hasStarted = false
    driverFeatures = 0
    transport.clearSelectors()
    for index in queueRegisters.indices { queueRegisters[index] = QueueRegisters(size: options.queueEntries) }
    for index in 0...options.queueCount { clinux_store16(vectors + index, Self.noVector) }
    interruptStatus.store(0, ordering: .relaxed)
    setLine(asserted: false)
    backend.writeCacheEnabled = backend.writeCacheDefault
  }

  /// Makes the loop let go of the rings; `quiet` becomes true when the last request is back.
  private func stopQueues() {
    resetCount.add(1, ordering: .acquiringAndReleasing)
    if isOnMainLoop {
      guard !quiet.load(ordering: .acquiring) else { return }
      // The main loop sleeps while we hold the machine lock, so its queues stand still.
      stopOnLoop()
    } else {
      // Even where it is quiet: its loop may be about to start what this reset ends.
      backend.loop.execute { [self] in stopOnLoop() }
    }
  }

  private func stopOnLoop() {
    queues.forEach { $0.stop() }
    // Requests that wait for the machine to go on, or for their time, would keep the device from becoming quiet.
    backend.hurry()
    queueBecameQuiet()
  }

  /// A stopped queue has its last request back. On the loop.
  func queueBecameQuiet() {
    guard queues.allSatisfy({ $0.isIdle }) else { return }
    quiet.store(true, ordering: .releasing)
    let start = startWhenQuiet
    startWhenQuiet = nil
    start?()
    // A main loop that drains sleeps until it is told to look again.
    if !isOnMainLoop { machine?.deviceBecameQuiet() }
    machine?.deviceSettled()
  }

  /// Which time between two resets it is.
  var currentLife: Int { resetCount.load(ordering: .acquiring) }

  var isOnMainLoop: Bool { machine.map { backend.loop === $0.mainLoop } ?? true }

  private func makeRing(_ queue: QueueRegisters) -> SplitQueue? {
    SplitQueue(
      entryCount: queue.size, descriptors: queue.descriptors, available: queue.available, used: queue.used,
      features: driverFeatures, memory: memory)
  }

  /// The guest sets queue_enable. A queue whose rings are not wholly RAM stays disabled and breaks the device.
  func enableQueue(_ index: Int) {
    guard !queueRegisters[index].isEnabled else { return }
    if makeRing(queueRegisters[index]) != nil {
      queueRegisters[index].isEnabled = true
      // A queue of the board may be taken back and set up again (§4.2.2.1).
      if hasStarted && (options.interface.isLegacy || options.mmioSlot != nil) { startLate(index) }
    } else {
      guestErrors.report("queue \(index): rings are misaligned or not in guest memory; it stays disabled")
      breakDevice()
    }
  }

  // MARK: Faults

  /// A queue's guest memory made no sense: the device stops until it is reset (§2.1.2, DEVICE_NEEDS_RESET). On the
  /// loop.
  func queueBroke(_ index: Int, fault: QueueFault) {
    guestErrors.report("queue \(index): \(fault); the device stops until the guest resets it")
    queues.forEach { $0.pause() }
    breakDevice()
  }

  private func breakDevice() {
    status.bitwiseOr(DeviceStatus.needsReset, ordering: .relaxed)
    interruptConfiguration()
  }

  // MARK: PCI

  public override func barMapped(_ index: Int, at address: UInt64) {
    guard index == TransportLayout.registersBAR, let machine else { return }
    registersBase = address
    for queue in queues {
      machine.doorbells.add(
        Doorbell(address: doorbellAddress(queue.index, address), width: TransportLayout.notifyWidth, event: queue.event)
      )
    }
  }

  public override func busMasterChanged() {
    let isMaster = isBusMaster
    backend.loop.execute { [self] in queues.forEach { $0.setBusMaster(isMaster) } }
  }

  public override func barUnmapped(_ index: Int) {
    guard index == TransportLayout.registersBAR, let machine, let base = registersBase else { return }
    registersBase = nil
    for queue in queues {
      machine.doorbells.remove(address: doorbellAddress(queue.index, base), width: TransportLayout.notifyWidth)
    }
  }

  private func doorbellAddress(_ queue: Int, _ base: UInt64) -> UInt64 {
    base + TransportLayout.notifyOffset + UInt64(queue) * TransportLayout.notifyMultiplier
  }

  public override func configurationRead(offset: Int, width: Int) -> UInt32 {
    if isWindowData(offset), let access = windowAccess(at: transport.accessCapability), access.width <= width {
      return UInt32(truncatingIfNeeded: transport.read(offset: access.offset, width: access.width))
    }
    return super.configurationRead(offset: offset, width: width)
  }

  public override func configurationWrite(offset: Int, width: Int, value: UInt32) {
    super.configurationWrite(offset: offset, width: width, value: value)
    if isWindowData(offset), let access = windowAccess(at: transport.accessCapability), access.width <= width {
      let bits = UInt64(value) & (UInt64(1) << (8 * UInt64(access.width)) - 1)
      transport.write(offset: access.offset, width: access.width, value: bits)
    }
  }

  private func isWindowData(_ offset: Int) -> Bool {
    transport.accessCapability != 0 && offset == transport.accessCapability + AccessWindow.data
  }

  /// What configuration space holds, without the window's effect.
  func storedConfiguration(_ offset: Int, _ width: Int) -> UInt32 {
    super.configurationRead(offset: offset, width: width)
  }

  // MARK: Device

  public override func added(to machine: Machine) {
    super.added(to: machine)
    mapMMIO(in: machine)
  }

  public override func reset() {
    super.reset()
    resetFromGuest()
  }

  public override func quiesce() {
    guard !quiet.load(ordering: .acquiring) else { return }
    backend.loop.execute { [self] in
      queues.forEach { $0.pause() }
      if !isDraining { backend.drainBegan() }
      isDraining = true
      queueBecameQuiet()
    }
  }

  public override var isQuiet: Bool { quiet.load(ordering: .acquiring) }

  /// A reset waits for requests in flight.
  public override var isSettling: Bool { status.load(ordering: .relaxed) == 0 && !quiet.load(ordering: .acquiring) }

  public override func resume() {
    let expected = resetCount.load(ordering: .relaxed)
    let isServing = hasStarted && !isBroken
    backend.loop.execute { [self] in
      // The disk is an ordinary one again, whether or not the guest has it started.
      if isDraining { backend.drainEnded() }
      isDraining = false
      guard isServing, resetCount.load(ordering: .acquiring) == expected else { return }
      quiet.store(false, ordering: .releasing)
      queues.forEach { $0.resume() }
    }
  }

  public override func shutdown() {
    super.shutdown()
    if options.mmioSlot != nil {
      unmapMMIO()
      setLine(asserted: false)
    }
    // A start on its way to the loop does nothing any more.
    resetCount.add(1, ordering: .acquiringAndReleasing)
    if isOnMainLoop {
      queues.forEach { $0.close() }
    } else {
      backend.loop.execute { [self] in queues.forEach { $0.close() } }
    }
  }
}

/// The identification string as the words that a GET_ID request copies, zero-padded to 20 bytes.
private func serialWords(_ serial: String) -> (UInt64, UInt64, UInt32) {
  var words: (UInt64, UInt64, UInt32) = (0, 0, 0)
  withUnsafeMutableBytes(of: &words) { bytes in
    for (index, byte) in serial.utf8.prefix(Limit.serialBytes).enumerated() { bytes[index] = byte }
  }
  return words
}

extension VirtioBlockDevice {
  /// Looks at a queue now, as its doorbell would have it. On the loop's thread.
  public func processQueue(_ index: Int) { queues[index].process() }
}
