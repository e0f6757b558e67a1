// SPDX-License-Identifier: Apache-2.0

/// The first virtio-blk disk of a machine, started for a load on its first queue.
public struct StartedVirtioDisk<B: Bus> {
  /// Owns the queue; kept as long as it is used.
  public let driver: VirtioBlockDriver<B>
  /// The queue to load.
  public let queue: VirtioBlockQueue<B>
  /// Sectors of 512 bytes.
  public let sectorCount: UInt64

  private static var queueSizeMax: UInt16 { 256 }

  /// Finds the disk and starts it.
  public init(topology: PCITopology<B>, waitMode: WaitMode) throws(DriverError) {
    guard let entry = topology.entries.first(where: { VirtioBlockDriver<B>.drives($0.function) }) else {
      throw .noDevice
    }
    driver = try VirtioBlockDriver(topology: topology, entry: entry)
    var options = VirtioBlockDriver<B>.Options()
    options.queueSizeMax = StartedVirtioDisk.queueSizeMax
    options.waitMode = waitMode
    try driver.start(options)
    queue = driver.queues[0]
    sectorCount = driver.configuration.sectorCount
  }
}

/// The first SATA disk of a machine's first AHCI controller, started for a load of queued commands.
public struct StartedAHCIDisk<B: Bus> {
  /// Owns the port; kept as long as its queue is used.
  public let controller: AHCIController<B>
  /// The queue to load.
  public let queue: AHCIQueue<B>
  /// Sectors of 512 bytes.
  public let sectorCount: UInt64

  /// Finds the disk and starts it.
  public init(topology: PCITopology<B>, waitMode: WaitMode) throws(DriverError) {
    guard let entry = topology.entries.first(where: { AHCIController<B>.drives($0.function) }) else {
      throw .noDevice
    }
    controller = try AHCIController(topology: topology, entry: entry)
    try controller.start(waitMode: waitMode)
    guard let port = controller.ports.first(where: { $0.queue != nil }), let queue = port.queue,
      queue.usesCommandQueuing, let identity = port.identity
    else { throw .missingCapability }
    self.queue = queue
    sectorCount = identity.sectorCount
  }
}
