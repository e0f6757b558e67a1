// SPDX-License-Identifier: Apache-2.0

/// Feature bits that the driver knows (virtio 1.3 §5.2.3 and §6), as masks.
public enum VirtioBlockFeature {
  /// VIRTIO_BLK_F_SIZE_MAX.
  public static var sizeMax: UInt64 { 1 << 1 }
  /// VIRTIO_BLK_F_SEG_MAX.
  public static var segmentsMax: UInt64 { 1 << 2 }
  /// VIRTIO_BLK_F_RO.
  public static var readOnly: UInt64 { 1 << 5 }
  /// VIRTIO_BLK_F_BLK_SIZE.
  public static var blockSize: UInt64 { 1 << 6 }
  /// VIRTIO_BLK_F_FLUSH.
  public static var flush: UInt64 { 1 << 9 }
  /// VIRTIO_BLK_F_TOPOLOGY.
  public static var topology: UInt64 { 1 << 10 }
  /// VIRTIO_BLK_F_CONFIG_WCE.
  public static var configWriteCache: UInt64 { 1 << 11 }
  /// VIRTIO_BLK_F_MQ.
  public static var multipleQueues: UInt64 { 1 << 12 }
  /// VIRTIO_F_INDIRECT_DESC.
  public static var indirectDescriptors: UInt64 { 1 << 28 }
  /// VIRTIO_F_EVENT_IDX.
  public static var eventIndex: UInt64 { 1 << 29 }
  /// VIRTIO_F_VERSION_1.
  public static var version1: UInt64 { 1 << 32 }

  /// Everything that this driver can make use of.
  public static var known: UInt64 {
    sizeMax | segmentsMax | readOnly | blockSize | flush | topology | configWriteCache | multipleQueues
      | indirectDescriptors | eventIndex | version1
  }
}

/// What a virtio-blk device says of itself (virtio 1.3 §5.2.4), as far as the features it offers cover it.
public struct VirtioBlockConfiguration: Equatable, Sendable {
  /// Size of the disk in sectors of 512 bytes.
  public var sectorCount: UInt64 = 0
  /// Most bytes of a segment; 0 where the device does not say.
  public var segmentBytesMax: UInt32 = 0
  /// Most data segments of a request; 0 where the device does not say.
  public var segmentsMax: UInt32 = 0
  /// Bytes of a logical block; 512 where the device does not say.
  public var blockBytes: UInt32 = 512
  /// How many request queues there are.
  public var queueCount: UInt16 = 1
}

/// A driver for one virtio-blk function: the transport, the handshake, the queues and simple synchronous requests.
public final class VirtioBlockDriver<B: Bus> {
  /// How the driver sets a device up.
  public struct Options: Sendable {
    /// Features that are taken where they are offered; VERSION_1 always is.
    public var featureMask: UInt64 = VirtioBlockFeature.known
    /// At most this many queues are set up.
    public var queuesMax: Int = 1
    /// At most this many descriptors a queue, a power of two.
    public var queueSizeMax: UInt16 = 128
    /// The most data segments of a request.
    public var segmentsMax: Int = 2
    /// How completions are learned of.
    public var waitMode: WaitMode = .interrupt
    /// Queue `i` interrupts processor `i` modulo this.
    public var processorCount: Int = 1

    /// All features, one queue of 128, interrupts.
    public init() {}
  }

  /// Device identifiers of virtio-blk (virtio 1.3 §4.1.2.1): 0x1040 + 2, and the transitional one.
  static var modernDevice: UInt16 { 0x1042 }
  static var transitionalDevice: UInt16 { 0x1001 }
  /// Bytes of the identification string (virtio 1.3 §5.2.6.1).
  public static var identificationBytes: UInt32 { 20 }
  /// Offsets in the device configuration (virtio 1.3 §5.2.4).
  static var capacityField: UInt64 { 0 }
  static var sizeMaxField: UInt64 { 8 }
  static var segmentsMaxField: UInt64 { 12 }
  static var blockSizeField: UInt64 { 20 }
  static var writebackField: UInt64 { 32 }
  static var queueCountField: UInt64 { 34 }
  /// A configuration that changes during this many reads is taken as it is.
  static var generationRetriesMax: Int { 16 }

  let bus: B
  /// The register blocks.
  public let transport: VirtioPCITransport<B>
  /// The features that the device offers.
  public private(set) var offeredFeatures: UInt64 = 0
  /// The features that both sides agreed on.
  public private(set) var features: UInt64 = 0
  /// What the device says of itself.
  public private(set) var configuration = VirtioBlockConfiguration()
  /// The queues that were set up, queue 0 first.
  public private(set) var queues: [VirtioBlockQueue<B>] = []
  /// Memory and interrupts stay with a queue through resets; these are the options that they were taken for.
  private var layout: Layout?
  private var interrupts: [(queue: Int, processor: Int, interrupt: MessageInterrupt)] = []

  private struct Layout: Equatable {
    var queueSizeMax: UInt16
    var segmentsMax: Int
    var isIndirect: Bool
    var usesEventIndex: Bool
    var waitMode: WaitMode
    var processorCount: Int
  }

  /// Whether a function is a virtio-blk device.
  public static func drives(_ function: PCIFunction) -> Bool {
    function.vendor == VirtioPCITransport<B>.vendor
      && (function.device == modernDevice || function.device == transitionalDevice)
  }

  /// Finds the register blocks of a function that `drives` accepts, and lets it decode.
  public init(topology: PCITopology<B>, entry: PCITopology<B>.Entry) throws(DriverError) {
    bus = topology.configuration.bus
    transport = try VirtioPCITransport(topology: topology, entry: entry)
  }

  // MARK: Set-up

  /// Resets the device and brings it up (virtio 1.3 §3.1.1). It may be called again; requests in flight are given up.
  public func start(_ options: Options) throws(DriverError) {
    try transport.reset()
    transport.addStatus(VirtioStatus.acknowledge)
    transport.addStatus(VirtioStatus.driver)
    offeredFeatures = transport.deviceFeatures()
    guard offeredFeatures & VirtioBlockFeature.version1 != 0 else {
      transport.addStatus(VirtioStatus.failed)
      throw .notModern
    }
    features = offeredFeatures & (options.featureMask & VirtioBlockFeature.known | VirtioBlockFeature.version1)
    transport.setDriverFeatures(features)
    transport.addStatus(VirtioStatus.featuresOK)
    guard transport.status & VirtioStatus.featuresOK != 0 else {
      transport.addStatus(VirtioStatus.failed)
      throw .featuresRefused
    }
    configuration = readConfiguration()
    try setUpQueues(options)
    transport.addStatus(VirtioStatus.driverOK)
    guard transport.status & VirtioStatus.needsReset == 0 else {
      throw .deviceBroken
    }
  }

  /// Reads the device configuration, again while its generation changes.
  public func readConfiguration() -> VirtioBlockConfiguration {
    var read = VirtioBlockConfiguration()
    for _ in 0..<VirtioBlockDriver.generationRetriesMax {
      let before = transport.generation
      read = VirtioBlockConfiguration()
      let low = transport.device32(VirtioBlockDriver.capacityField)
      let high = transport.device32(VirtioBlockDriver.capacityField + 4)
      read.sectorCount = UInt64(high) << 32 | UInt64(low)
      if offeredFeatures & VirtioBlockFeature.sizeMax != 0 {
        read.segmentBytesMax = transport.device32(VirtioBlockDriver.sizeMaxField)
      }
      if offeredFeatures & VirtioBlockFeature.segmentsMax != 0 {
        read.segmentsMax = transport.device32(VirtioBlockDriver.segmentsMaxField)
      }
      if offeredFeatures & VirtioBlockFeature.blockSize != 0 {
        read.blockBytes = transport.device32(VirtioBlockDriver.blockSizeField)
      }
      if offeredFeatures & VirtioBlockFeature.multipleQueues != 0 {
        read.queueCount = transport.device16(VirtioBlockDriver.queueCountField)
      }
      if transport.generation == before {
        break
      }
    }
    return read
  }

  private func setUpQueues(_ options: Options) throws(DriverError) {
    let wanted = Layout(
      queueSizeMax: options.queueSizeMax, segmentsMax: options.segmentsMax,
      isIndirect: features & VirtioBlockFeature.indirectDescriptors != 0,
      usesEventIndex: features & VirtioBlockFeature.eventIndex != 0, waitMode: options.waitMode,
      processorCount: max(options.processorCount, 1))
    if wanted != layout {
      queues = []
      layout = wanted
    }
    var count = 1
    if features & VirtioBlockFeature.multipleQueues != 0 {
      count = max(1, min(options.queuesMax, Int(configuration.queueCount)))
    }
    if queues.count > count {
      queues.removeLast(queues.count - count)
    }
    transport.clearConfigurationVector()
    if options.waitMode == .interrupt {
      transport.msix?.enable()
    } else {
      transport.msix?.disable()
    }
    for index in 0..<count {
      if index == queues.count {
        queues.append(try makeQueue(index, wanted))
      }
      let queue = queues[index]
      queue.clear()
      var vector = VirtioPCITransport<B>.noVector
      if let interrupt = queue.interrupt, let msix = transport.msix {
        msix.program(index, interrupt)
        vector = UInt16(index)
      }
      queue.notifyAddress = try transport.enableQueue(UInt16(index), queue.ring, vector: vector)
    }
  }

  private func makeQueue(_ index: Int, _ layout: Layout) throws(DriverError) -> VirtioBlockQueue<B> {
    let offered = transport.queueSizeMax(UInt16(index))
    // Split queues have sizes that are powers of two; the device says the largest it takes.
    guard offered > 0, offered & (offered - 1) == 0 else {
      throw .queueRefused
    }
    var interrupt: MessageInterrupt?
    if layout.waitMode == .interrupt, let msix = transport.msix, index < msix.entryCount {
      interrupt = try takeInterrupt(index, processor: index % layout.processorCount)
    }
    return try VirtioBlockQueue(
      bus: bus, index: UInt16(index), size: min(offered, layout.queueSizeMax), segmentsMax: layout.segmentsMax,
      isIndirect: layout.isIndirect, usesEventIndex: layout.usesEventIndex, interrupt: interrupt)
  }

  /// Vectors are few, so a queue keeps the one it has for as long as it interrupts the same processor.
  private func takeInterrupt(_ queue: Int, processor: Int) throws(DriverError) -> MessageInterrupt {
    for known in interrupts where known.queue == queue && known.processor == processor {
      return known.interrupt
    }
    guard let interrupt = bus.allocateInterrupt(processor: processor) else {
      throw .outOfResources
    }
    interrupts.append((queue, processor, interrupt))
    return interrupt
  }

  /// Puts a queue that its new owner has wrapped in place of the one it was made from.
  public func replaceQueue(_ index: Int, with queue: VirtioBlockQueue<B>) {
    queues[index] = queue
  }

  // MARK: Properties

  /// Whether the device refuses writes.
  public var isReadOnly: Bool { offeredFeatures & VirtioBlockFeature.readOnly != 0 }

  /// Whether a feature was agreed on.
  public func has(_ feature: UInt64) -> Bool { features & feature == feature }

  /// Whether the device says it has met an error that only a reset ends.
  public var needsReset: Bool { transport.status & VirtioStatus.needsReset != 0 }

  /// Whether the device caches writes, as CONFIG_WCE lets the driver read and set (virtio 1.3 §5.2.5).
  public var isWriteCacheOn: Bool {
    get { transport.device8(VirtioBlockDriver.writebackField) != 0 }
    set { transport.writeDevice8(VirtioBlockDriver.writebackField, newValue ? 1 : 0) }
  }

  // MARK: Synchronous requests on queue 0, with nothing else in flight

  /// Reads `byteCount` bytes from `sector` into RAM at `address`.
  /// - Returns: the status byte.
  public func read(sector: UInt64, into address: UInt64, byteCount: UInt32) throws(DriverError) -> UInt8 {
    try queues[0].perform(type: VirtioBlockType.read, sector: sector, address: address, byteCount: byteCount).status
  }

  /// Writes `byteCount` bytes of RAM at `address` to `sector`.
  /// - Returns: the status byte.
  public func write(sector: UInt64, from address: UInt64, byteCount: UInt32) throws(DriverError) -> UInt8 {
    try queues[0].perform(type: VirtioBlockType.write, sector: sector, address: address, byteCount: byteCount).status
  }

  /// Makes all completed writes durable.
  /// - Returns: the status byte.
  public func flush() throws(DriverError) -> UInt8 {
    try queues[0].perform(type: VirtioBlockType.flush, sector: 0, address: 0, byteCount: 0).status
  }

  /// Reads the identification string into 20 bytes of RAM at `address`.
  /// - Returns: the status byte.
  public func getID(into address: UInt64) throws(DriverError) -> UInt8 {
    try queues[0].perform(
      type: VirtioBlockType.getID, sector: 0, address: address, byteCount: VirtioBlockDriver.identificationBytes
    ).status
  }
}
