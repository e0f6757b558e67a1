// SPDX-License-Identifier: Apache-2.0
// Commands of a disk on an AHCI port, and exactly what they leave behind.
import Testing

@Suite struct AHCICommandTests {
  private static func port(_ folder: Folder, more: String = "", image: String? = nil) throws -> Port {
    let image = try image ?? folder.image()
    let machine = try Machine(
      "-M q35 -drive if=none,id=drive0,file=\(image),cache=writeback,format=raw\(more) -device ide-hd,drive=drive0 "
        + "-global ide-hd.serial=testdisk -global ide-hd.ver=version",
      folder: folder)
    return try HBA(machine).prepared(5)
  }

  @Test func identityHasSerialNumberAndVersion() throws {
    let port = try Self.port(try Folder())
    let outcome = try port.run(.identify, reading: 512)
    outcome.expectSuccess(3)
    #expect(outcome.bytesDone == 512)
    #expect(outcome.data.littleEndian16(at: 10) == 512)
    #expect(HBA.text(outcome.data[20..<40]) == "testdisk            ")
    #expect(HBA.text(outcome.data[46..<54]) == "version ")
    #expect(outcome.data.littleEndian64(at: 200) == 131072)
  }

  /// Code of writing and reading, whether the address has 48 bits, and PxIS after each; nil where it depends on length.
  struct Way: Sendable, CustomTestStringConvertible {
    let write: UInt8, read: UInt8, isLong: Bool, isPIO: Bool
    var testDescription: String { String(write, radix: 16) }
  }
  private static let ways = [
    Way(write: 0xca, read: 0xc8, isLong: false, isPIO: false), Way(write: 0x35, read: 0x25, isLong: true, isPIO: false),
    Way(write: 0x30, read: 0x20, isLong: false, isPIO: true), Way(write: 0x34, read: 0x24, isLong: true, isPIO: true),
  ]

  @Test(arguments: ways, [1, 2, 8, 512]) func transferLeavesWhatTheContractSays(_ way: Way, _ sectors: Int) throws {
    let port = try Self.port(try Folder())
    let data = pattern(512 * sectors, seed: way.write)
    for sector in [0, 1000, 131072 - UInt64(sectors)] {
      func command(_ code: UInt8) -> Command {
        way.isLong
          ? Command(code, sector: sector, count: sectors) : Command(short: code, sector: sector, count: sectors)
      }
      let written = try port.run(command(way.write).writing(), writing: data)
      written.expectSuccess(way.isPIO && sectors > 1 ? 3 : 1)
      #expect(written.bytesDone == UInt32(data.count))
      Self.expectFIS(written)
      let read = try port.run(command(way.read), reading: data.count)
      read.expectSuccess(way.isPIO ? 3 : 1)
      #expect(read.bytesDone == UInt32(data.count))
      #expect(read.data == data)
      Self.expectFIS(read)
      if way.isPIO {
        #expect(read.setupFIS[0] == 0x5f)
        #expect(read.setupFIS.littleEndian16(at: 16) == 512)
        #expect(written.setupFIS[0] == 0x5f)
        #expect(written.setupFIS.littleEndian16(at: 16) == 512)
      }
    }
  }

  private static func expectFIS(_ outcome: Outcome, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(outcome.taskFile >> 8 == 0, sourceLocation: sourceLocation)
    #expect(outcome.deviceFIS[0] == 0x34, sourceLocation: sourceLocation)
    #expect(UInt32(outcome.deviceFIS[2]) == outcome.taskFile & 0xff, sourceLocation: sourceLocation)
    #expect(UInt32(outcome.deviceFIS[3]) == outcome.taskFile >> 8 & 0xff, sourceLocation: sourceLocation)
  }

  @Test func queuedCommandsCompleteByActiveBits() throws {
    let port = try Self.port(try Folder())
    for sectors in [1, 2, 8, 256] {
      let data = pattern(512 * sectors, seed: UInt8(sectors & 0xff))
      try port.run(.queued(0x61, sector: 77, count: sectors), writing: data).expectSuccess(8)
      let read = try port.run(.queued(0x60, sector: 77, count: sectors), reading: data.count)
      read.expectSuccess(8)
      #expect(read.data == data)
      #expect(try port.register(Port.Offset.issue) == 0)
    }
  }

  @Test func allSlotsWorkAtOnce() throws {
    let port = try Self.port(try Folder())
    try port.machine.fill(port.received, 256, 0)
    // A table for each, since all are in flight at once.
    var issued: [Port.Issued] = []
    for index in 0..<32 {
      let data = pattern(4096, seed: UInt8(index))
      issued.append(
        try port.issue(.queued(0x61, sector: UInt64(index) * 8, count: 8), writing: data, ownTable: true))
    }
    for one in issued { try port.wait(for: one).expectSuccess() }
    for index in 0..<32 {
      let read = try port.run(.readDMA(sector: UInt64(index) * 8, count: 8), reading: 4096)
      #expect(read.data == pattern(4096, seed: UInt8(index)))
    }
  }

  @Test(arguments: [32, 512, 65536]) func dataMayBeInPiecesOfAnySize(_ piece: Int) throws {
    let port = try Self.port(try Folder())
    let data = pattern(piece == 32 ? 4096 : 65536)
    try port.run(.writeDMA(sector: 9, count: data.count / 512), writing: data, piece: piece).expectSuccess(1)
    let read = try port.run(.readDMA(sector: 9, count: data.count / 512), reading: data.count, piece: piece)
    read.expectSuccess(1)
    #expect(read.data == data)
  }

  @Test func flushAndMaximumAddressMoveNoData() throws {
    let port = try Self.port(try Folder())
    let flush = try port.run(.flush)
    flush.expectSuccess(1)
    #expect(flush.bytesDone == 0)
    Self.expectFIS(flush)
    for code in [0xf8, 0x27] as [UInt8] {
      let outcome = try port.run(Command(code))
      outcome.expectSuccess(1)
      let fis = outcome.deviceFIS
      let bytes = [fis[4], fis[5], fis[6], code == 0xf8 ? fis[7] & 15 : fis[8], fis[9], fis[10], 0, 0]
      #expect(bytes.littleEndian64(at: 0) == 131071)
      Self.expectFIS(outcome)
    }
  }

  @Test func disksOfTerabytesAreWritableAtTheirEnd() throws {
    let folder = try Folder()
    let sectors: UInt64 = 200 << 21
    let image = try folder.image("big.img", byteCount: sectors * 512)
    let port = try Self.port(folder, image: image)
    let data = pattern(4096)
    for sector: UInt64 in [0x0fff_ffff - 8, 0x1000_0000, sectors - 8] {
      try port.run(.writeDMA(sector: sector, count: 8), writing: data).expectSuccess(1)
      #expect(try port.run(.readDMA(sector: sector, count: 8), reading: 4096).data == data)
    }
    let outcome = try port.run(Command(0x27))
    #expect(
      (Array(outcome.deviceFIS[4...6] + outcome.deviceFIS[8...10]) + [0, 0]).littleEndian64(at: 0) == sectors - 1)
    #expect(try fileBytes(image, at: (sectors - 8) * 512, count: 4096) == data)
  }

  @Test func driveOfTheOldKindIsOnPortZero() throws {
    let folder = try Folder()
    let image = try folder.image()
    let machine = try Machine("-M pc -drive file=\(image),format=raw,if=ide", folder: folder)
    let port = try HBA(machine).prepared(0)
    #expect(try port.identity().littleEndian64(at: 200) == 131072)
  }

  @Test func nullDriveReadsZeroes() throws {
    let machine = try Machine(
      "-M q35 -drive if=none,id=drive0,file=null-co://,file.read-zeroes=on,format=raw -device ide-hd,drive=drive0,bus=ide.2"
    )
    let port = try HBA(machine).prepared(2)
    #expect(try port.identity().littleEndian64(at: 200) == 1 << 21)
    let read = try port.run(.readDMA(sector: 5, count: 2), reading: 1024)
    read.expectSuccess(1)
    #expect(read.data.allSatisfy { $0 == 0 })
  }

  @Test func readPastTheEndKeepsItsBitUntilTheEngineStops() throws {
    let port = try Self.port(try Folder())
    for command in [Command.readDMA(sector: 131072, count: 1), .queued(0x60, sector: 131072, count: 1)] {
      try port.clearStatus()
      let issued = try port.issue(command, reading: 512)
      let failed = try port.waitForError(issued)
      #expect(failed.taskFile & 0x89 == 1)
      #expect(try port.isPending(issued))
      try port.restart()
      #expect(try !port.isPending(issued))
      #expect(try port.register(Port.Offset.taskFile) & 0x89 == 1, "the error is still there")
      try port.run(.readDMA(sector: 0, count: 1), reading: 512).expectSuccess(1)
      #expect(try port.register(Port.Offset.taskFile) & 0xff01 == 0)
    }
  }

  @Test func readWithoutAnyPlaceForItsDataHarmsNobody() throws {
    let port = try Self.port(try Folder())
    _ = try port.issue(.readDMA(sector: 0, count: 1))
    // How it ends is the controller's affair; that the next one works is everybody's.
    try port.hba.reset()
    let again = try port.hba.prepared(5)
    try again.run(.readDMA(sector: 0, count: 1), reading: 512).expectSuccess(1)
  }
}
