// SPDX-License-Identifier: Apache-2.0

/// A disk that the data cases run on, and what they have found out about it.
protocol DiskUnderTest: AnyObject {
  associatedtype Queue: DiskQueue

  /// The number in the report.
  var number: Int { get }
  /// Where the cases' requests go.
  var queue: Queue { get }
  /// Size of the disk in sectors of 512 bytes.
  var sectorCount: UInt64 { get }
  /// The most bytes of one request, a multiple of 512.
  var requestBytesMax: UInt64 { get }
  /// Whether the disk refuses writes.
  var isReadOnly: Bool { get }
  /// Whether there is a command that makes writes durable.
  var canFlush: Bool { get }
  /// Makes all completed writes durable.
  /// - Returns: whether the device says that it did.
  func flush() throws(DriverError) -> Bool
  /// The partitions, once they were found.
  var table: GUIDPartitionTable? { get set }
  /// Sum of the first chunk of the disk, which later cases read again and again.
  var firstChunkSum: WordSum? { get set }
}

extension DiskUnderTest {
  /// Bytes of the disk.
  var byteCount: UInt64 { sectorCount << 9 }
  /// The scratch partition, where the disk has one and may be written.
  var scratch: GPTPartition? {
    guard !isReadOnly, let partition = table?.partition(2), partition.isScratch else {
      return nil
    }
    return partition
  }
}

/// A virtio-blk disk under test.
final class VirtioDisk<B: Bus>: DiskUnderTest {
  let number: Int
  let driver: VirtioBlockDriver<B>
  var table: GUIDPartitionTable?
  var firstChunkSum: WordSum?

  init(number: Int, driver: VirtioBlockDriver<B>) {
    self.number = number
    self.driver = driver
  }

  /// The first queue.
  var queue: VirtioBlockQueue<B> { driver.queues[0] }
  var sectorCount: UInt64 { driver.configuration.sectorCount }
  var requestBytesMax: UInt64 {
    let segmentBytesMax = driver.configuration.segmentBytesMax & ~511
    return UInt64(segmentBytesMax == 0 ? ~511 : segmentBytesMax)
  }
  var isReadOnly: Bool { driver.isReadOnly }
  var canFlush: Bool { driver.has(VirtioBlockFeature.flush) }
  func flush() throws(DriverError) -> Bool {
    try driver.flush() == VirtioBlockStatus.ok
  }
}
