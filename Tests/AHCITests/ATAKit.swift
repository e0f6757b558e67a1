// SPDX-License-Identifier: Apache-2.0
// A disk without a port for tests of its commands, and the disk image behind it.
import Block
import EventLoop
import Glibc
import HostSystem

@testable import AHCI

/// A disk image that remembers what was asked of it. Each sector reads as its number's bytes, over and over; what is
/// written is kept aside.
final class RecordingDriver: BlockDriver {
  struct Entry: Equatable {
    var operation: BlockOperation
    var lba: UInt64 = 0
    var sectors: UInt64 = 0
    var isDurable = false
  }

  private(set) var sectors: UInt64
  let servesDiscards: Bool
  let physicalBytes: Int
  var entries: [Entry] = []
  var written: [UInt8] = []

  init(sectors: UInt64 = 4096, servesDiscards: Bool = true, physicalBytes: Int = 512) {
    self.sectors = sectors
    self.servesDiscards = servesDiscards
    self.physicalBytes = physicalBytes
    super.init()
  }

  /// Entries of one kind, in order.
  func entries(_ operation: BlockOperation) -> [Entry] { entries.filter { $0.operation == operation } }

  static func content(lba: UInt64, sectors: UInt64) -> [UInt8] {
    var bytes: [UInt8] = []
    for sector in lba..<lba + sectors {
      withUnsafeBytes(of: sector.littleEndian) { number in for _ in 0..<64 { bytes += number } }
    }
    return bytes
  }

  override var byteCount: UInt64 { sectors * 512 }
  override var physicalBlockBytes: Int { physicalBytes }
  override var supportsDiscard: Bool { servesDiscards }

  override func resize(to byteCount: UInt64) throws(SystemError) { sectors = byteCount / 512 }

  override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    let lba = request.pointee.offset / 512
    let count = request.pointee.byteCount / 512
    entries.append(
      Entry(
        operation: request.pointee.operation, lba: lba, sectors: count, isDurable: request.pointee.forceUnitAccess))
    if let iovecs = request.pointee.iovecs, request.pointee.iovecCount == 1, let base = iovecs[0].iov_base {
      switch request.pointee.operation {
      case .read: Self.fill(base, lba: lba, sectors: count)
      case .write: written = Array(UnsafeRawBufferPointer(start: base, count: iovecs[0].iov_len))
      case .flush, .discard, .writeZeroes: break
      }
    }
    request.pointee.result = 0
    completeLater(request)
  }

  private static func fill(_ base: UnsafeMutableRawPointer, lba: UInt64, sectors: UInt64) {
    let words = base.assumingMemoryBound(to: UInt64.self)
    for sector in 0..<Int(sectors) { (words + sector * 64).update(repeating: lba + UInt64(sector), count: 64) }
  }
}

/// A disk with its link.
final class ATAKit {
  let loop: EventLoop
  let driver: RecordingDriver
  let backend: BlockBackend
  let drive: ATADrive
  let link: FakeLink

  init(
    driver: RecordingDriver = RecordingDriver(), rules: [FaultRule] = [], readOnly: Bool = false,
    cache: CacheMode = .writeback, serial: String = "", options: ATADriveOptions = ATADriveOptions()
  ) throws {
    loop = try EventLoop(name: "test")
    self.driver = driver
    var configuration = BlockConfiguration()
    configuration.isReadOnly = readOnly
    configuration.cache = cache
    configuration.serial = serial
    // Errors reach the guest, whatever they are.
    configuration.writeErrorPolicy = .report
    let top = rules.isEmpty ? driver : FaultDriver(over: driver, rules: rules, loop: loop)
    backend = BlockBackend(driver: top, loop: loop, configuration: configuration)
    drive = ATADrive(backend: backend, options: options)
    link = FakeLink(device: drive, loop: loop)
  }

  @discardableResult
  func run(
    _ command: UInt8, features: UInt16 = 0, lba: UInt64 = 0, count: UInt16 = 0, deviceRegister: UInt8 = 0x40
  ) -> TaskFile {
    link.run(command, features: features, lba: lba, count: count, deviceRegister: deviceRegister)
  }

  /// SET FEATURES.
  @discardableResult
  func set(_ subcommand: UInt8, count: UInt16 = 0) -> TaskFile { run(0xef, features: UInt16(subcommand), count: count) }

  /// SMART with its key.
  @discardableResult
  func smart(_ subcommand: UInt8, low: UInt8 = 0, count: UInt16 = 0) -> TaskFile {
    run(0xb0, features: UInt16(subcommand), lba: 0xc2_4f00 | UInt64(low), count: count)
  }

  /// The words of IDENTIFY DEVICE.
  @discardableResult
  func identity() -> [UInt16] {
    run(0xec)
    return Self.words(link.received)
  }

  static func words(_ bytes: [UInt8]) -> [UInt16] {
    stride(from: 0, to: bytes.count, by: 2).map { UInt16(bytes[$0]) | UInt16(bytes[$0 + 1]) << 8 }
  }

  /// A string of IDENTIFY DEVICE.
  static func text(_ words: ArraySlice<UInt16>) -> String {
    String(decoding: words.flatMap { [UInt8($0 >> 8), UInt8($0 & 0xff)] }, as: UTF8.self)
  }

  static func quadword(_ bytes: [UInt8], _ index: Int) -> UInt64 {
    (0..<8).reduce(0) { $0 | UInt64(bytes[index * 8 + $1]) << UInt64(8 * $1) }
  }

  static func sum(_ bytes: [UInt8]) -> UInt8 { bytes.reduce(0, &+) }
}

extension TaskFile {
  /// The command succeeded, with a clear error register.
  var isGood: Bool { status == 0x50 && error == 0 }
  /// The command failed with exactly this error.
  func isError(_ register: UInt8) -> Bool { status == 0x51 && error == register }
  var isAborted: Bool { isError(0x04) }
  var isNotFound: Bool { isError(0x10) }
}

/// A disk in memory, which keeps what is written.
final class MemoryKit {
  let loop: EventLoop
  let backend: BlockBackend
  let link: FakeLink

  init(driver: MemoryDriver) throws {
    loop = try EventLoop(name: "test")
    backend = BlockBackend(driver: driver, loop: loop, configuration: BlockConfiguration())
    link = FakeLink(device: ATADrive(backend: backend), loop: loop)
  }
}
