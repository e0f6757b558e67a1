// SPDX-License-Identifier: Apache-2.0
// A CD-ROM drive on a link of its own, with discs whose bytes tell where they are.
import EventLoop
import Testing

@testable import AHCI
@testable import Block

/// A drive, the loop of its discs, and what a host's driver does with it.
final class ATAPIKit {
  let loop: EventLoop
  let drive: ATAPIDrive
  let link: FakeLink

  /// A drive with `disc` in it.
  init(_ disc: BlockDriver?, options: ATAPIDriveOptions = ATAPIDriveOptions()) throws {
    let loop = try EventLoop(name: "test")
    self.loop = loop
    drive = ATAPIDrive(
      backend: disc.map { BlockBackend(driver: $0, loop: loop, configuration: BlockConfiguration()) }, options: options)
    link = FakeLink(device: drive, loop: loop)
  }

  /// A drive with a disc of so many blocks of `content`.
  convenience init(blocks: Int = 64) throws {
    try self.init(MemoryDriver(byteCount: UInt64(blocks) * 2048, initial: Self.content(blocks: blocks)))
  }

  /// An empty drive.
  static func empty() throws -> ATAPIKit { try ATAPIKit(nil) }

  /// Bytes that differ from block to block.
  static func content(blocks: Int) -> [UInt8] {
    (0..<blocks * 2048).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 / 2048 &* 31) }
  }

  /// Another disc on the drive's loop.
  func disc(blocks: Int = 8) throws -> BlockBackend {
    try BlockBackend(
      driver: MemoryDriver(byteCount: UInt64(blocks) * 2048, initial: Self.content(blocks: blocks)), loop: loop,
      configuration: BlockConfiguration())
  }

  /// PACKET by DMA, or by PIO in blocks of at most `limit` bytes.
  @discardableResult
  func packet(_ bytes: [UInt8], limit: UInt64? = nil) -> TaskFile {
    link.run(0xa0, features: limit == nil ? 1 : 0, lba: (limit ?? 0) << 8, packet: bytes)
  }

  /// What a packet command answers, which must succeed.
  func answer(_ bytes: [UInt8], sourceLocation: SourceLocation = #_sourceLocation) -> [UInt8] {
    let registers = packet(bytes)
    #expect(registers.status == 0x50 && registers.error == 0, sourceLocation: sourceLocation)
    #expect(registers.count == 3, sourceLocation: sourceLocation)
    return link.received
  }

  /// Sense key, code and qualifier as REQUEST SENSE tells them.
  func fetchSense() -> [UInt8] {
    let data = answer([0x03, 0, 0, 0, 18])
    return [data[2], data[12], data[13]]
  }

  /// What a packet command fails with; the error register must have the key and nothing else.
  func failure(
    _ bytes: [UInt8], limit: UInt64? = nil, sourceLocation: SourceLocation = #_sourceLocation
  ) -> [UInt8] {
    let registers = packet(bytes, limit: limit)
    #expect(registers.status == 0x41 && registers.count == 3, sourceLocation: sourceLocation)
    #expect(link.slot.pointee.deviceBuffer == nil, sourceLocation: sourceLocation)
    let sense = fetchSense()
    #expect(registers.error == sense[0] << 4, sourceLocation: sourceLocation)
    return sense
  }

  /// Whether a packet command is aborted as an ATA command.
  func isAborted(_ bytes: [UInt8], limit: UInt64?) -> Bool {
    let registers = packet(bytes, limit: limit)
    return registers.status & 0x01 != 0 && registers.error == 0x04
  }

  func testUnitReady() -> TaskFile { packet([0x00]) }
}

/// A disc whose requests the test sees before they are served.
final class WatchedDriver: BlockDriver {
  private let bytes: UInt64
  var onSubmit: (UnsafeMutablePointer<BlockRequest>) -> Int32 = { _ in 0 }

  init(blocks: UInt64) {
    bytes = blocks * 2048
    super.init()
  }

  override var byteCount: UInt64 { bytes }
  override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    request.pointee.result = onSubmit(request)
    completeLater(request)
  }
}

/// A number in an answer.
func bigEndian(_ bytes: ArraySlice<UInt8>) -> Int { bytes.reduce(0) { $0 << 8 | Int($1) } }
