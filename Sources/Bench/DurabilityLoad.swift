// SPDX-License-Identifier: Apache-2.0
import Accelerators
import Assembly
import Block
import Glibc
import GuestDrivers
import HostSystem
import Platform

/// A seeded load of writes that can be killed at any moment, and the check of what it had been promised.
///
/// Each block of the disk carries its number and a version in every word. The guest's driver writes rising versions to
/// random blocks, several at once, and flushes now and then. What is durable by the device's word (written and then
/// flushed, or completed on a disk without a volatile write cache) goes into the log, an ordinary file, at once. After
/// the process was killed, every block must hold one whole version, and none older than the log says.
public struct DurabilityLoad: Sendable {
  /// Bytes of a block.
  public static let blockBytes = 4096
  /// Slots of the queue in use: the first flushes, the others write.
  private static let slotCount = 8
  /// Writes that are acknowledged before a flush is sent after them.
  private static let writesPerFlush = 16
  /// Log entries between two lines on standard output, by which a test knows that the load is under way.
  private static let entriesPerLine: UInt64 = 32
  /// Blocks of the disk in use; few, so that each is written many times.
  private static let blocksMax: UInt64 = 1024
  private static let stamp: UInt64 = 0x5350_4e44_4c45_0000

  var drive: DriveConfiguration
  var log: String
  var seed: UInt64
  var usesIOThread: Bool

  /// A load on `drive`, a file, that notes in the file `log` what is durable.
  public init(drive: DriveConfiguration, log: String, seed: UInt64, usesIOThread: Bool) {
    self.drive = drive
    self.log = log
    self.seed = seed
    self.usesIOThread = usesIOThread
  }

  // MARK: The load

  /// Runs until the process is killed.
  public func run() throws {
    guard case .file(let path) = drive.source else { throw BenchError("the load takes a file") }
    let versions = try Self.versions(of: path)
    let descriptor = try OwnedDescriptor.open(log, flags: O_WRONLY | O_CREAT | O_APPEND)
    let log = Log(descriptor: descriptor.number)
    var configuration = MachineConfiguration()
    configuration.drives = [drive]
    configuration.usesIOThreads = usesIOThread
    let assembled = try AssembledMachine(configuration, serial: MemorySink())
    let machine = assembled.machine
    let load = self
    _ = assembled.useHosted(processorCount: 1) { bus in
      do throws(DriverError) { try load.guestProgram(bus, versions, log) } catch {
        StandardError.print("spindle: the guest's driver gave up: \(error)")
      }
      machine.requestShutdown(.guestFault)
    }
    _ = try assembled.run()
    throw BenchError("the load ended by itself")
  }

  private struct Log: Sendable {
    let descriptor: Int32

    /// One write, which the kernel keeps whole and in order.
    func append(_ entries: [UInt64]) {
      let count = entries.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      precondition(count == entries.count * 8, "the log cannot be written")
    }

    /// A line on standard output, not held back in a buffer.
    func tellProgress(_ count: UInt64) {
      let line = Array("\(count)\n".utf8)
      _ = line.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
    }
  }

  /// What the guest knows of a write that is under way, by slot.
  private struct Pending {
    var block: UInt64 = 0
    var version: UInt64 = 0
  }

  private func guestProgram(_ bus: HostedBus, _ known: [UInt64], _ log: Log) throws(DriverError) {
    let topology = PCITopology(bus: bus)
    guard let entry = topology.entries.first(where: { VirtioBlockDriver<HostedBus>.drives($0.function) }),
      let buffers = bus.allocate(byteCount: UInt64(Self.blockBytes * Self.slotCount), alignment: 4096)
    else { throw .outOfResources }
    let driver = try VirtioBlockDriver(topology: topology, entry: entry)
    try driver.start(VirtioBlockDriver<HostedBus>.Options())
    let queue = driver.queues[0]
    let hasWriteCache = drive.cache.hasWriteCache
    for slot in 1..<Self.slotCount {
      let buffer = buffers + UInt64(slot * Self.blockBytes)
      queue.prepare(slot: slot, type: VirtioBlockType.write, address: buffer, byteCount: UInt32(Self.blockBytes))
    }
    queue.prepare(slot: 0, type: VirtioBlockType.flush, address: buffers, byteCount: 0)
    var random = XorShift64(seed: seed)
    var versions = known
    var pending = [Pending](repeating: Pending(), count: Self.slotCount)
    var acknowledged: [UInt64] = []
    var flushing: [UInt64] = []
    var entryCount: UInt64 = 0

    func note(_ entries: [UInt64]) {
      log.append(entries)
      let before = entryCount
      entryCount += UInt64(entries.count / 2)
      if before / Self.entriesPerLine != entryCount / Self.entriesPerLine { log.tellProgress(entryCount) }
    }
    func startWrite(_ slot: Int) {
      var block = random.next(below: UInt64(versions.count))
      // One write of a block at a time: the disk may do two in any order.
      while (1..<Self.slotCount).contains(where: { queue.isInFlight($0) && pending[$0].block == block }) {
        block = (block + 1) % UInt64(versions.count)
      }
      versions[Int(block)] += 1
      pending[slot] = Pending(block: block, version: versions[Int(block)])
      let buffer = buffers + UInt64(slot * Self.blockBytes)
      for offset in stride(from: UInt64(0), to: UInt64(Self.blockBytes), by: 16) {
        bus.ramWrite64(buffer + offset, Self.stamp | block)
        bus.ramWrite64(buffer + offset + 8, versions[Int(block)])
      }
      queue.submit(slot: slot, sector: block * UInt64(Self.blockBytes / 512))
    }

    for slot in 1..<Self.slotCount { startWrite(slot) }
    queue.kick()
    while true {
      let completion = try queue.waitForCompletion()
      guard completion.status == VirtioBlockStatus.ok else { throw .deviceBroken }
      if completion.slot == 0 {
        note(flushing)
      } else {
        let done = [pending[completion.slot].block, pending[completion.slot].version]
        if hasWriteCache { acknowledged += done } else { note(done) }
        startWrite(completion.slot)
      }
      if acknowledged.count / 2 >= Self.writesPerFlush && !queue.isInFlight(0) {
        flushing = acknowledged
        acknowledged = []
        queue.submit(slot: 0, sector: 0)
      }
      queue.kick()
    }
  }

  // MARK: The check

  /// Checks the image against the log.
  /// - Returns: how many promises were checked.
  /// - Throws: `BenchError`, which names the first block that breaks its promise.
  public func check() throws -> Int {
    guard case .file(let path) = drive.source else { throw BenchError("the load takes a file") }
    let versions = try Self.versions(of: path)
    let bytes = try readWholeFile(log)
    // The last entry may be cut off by the kill.
    let entries = bytes.count / 16
    try bytes.withUnsafeBytes { log in
      for index in 0..<entries {
        let block = log.loadUnaligned(fromByteOffset: index * 16, as: UInt64.self)
        let version = log.loadUnaligned(fromByteOffset: index * 16 + 8, as: UInt64.self)
        guard block < UInt64(versions.count) else { throw BenchError("the log names block \(block)") }
        if versions[Int(block)] < version {
          throw BenchError("block \(block) holds version \(versions[Int(block)]), but \(version) was durable")
        }
      }
    }
    return entries
  }

  /// The version of each block; 0 for those that were never written.
  private static func versions(of path: String) throws -> [UInt64] {
    let bytes = try readWholeFile(path)
    let count = min(bytes.count / blockBytes, Int(blocksMax))
    var versions = [UInt64](repeating: 0, count: count)
    try bytes.withUnsafeBytes { image in
      for block in 0..<count {
        let word = { (offset: Int) in
          image.loadUnaligned(fromByteOffset: block * blockBytes + offset, as: UInt64.self)
        }
        let (first, version) = (word(0), word(8))
        let isWhole = stride(from: 0, to: blockBytes, by: 16).allSatisfy {
          word($0) == first && word($0 + 8) == version
        }
        guard isWhole, first == stamp | UInt64(block) || (first == 0 && version == 0) else {
          throw BenchError("block \(block) holds a mixture or something foreign")
        }
        versions[block] = version
      }
    }
    return versions
  }
}
