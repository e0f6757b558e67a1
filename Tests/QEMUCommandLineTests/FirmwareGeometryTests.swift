// SPDX-License-Identifier: Apache-2.0
// Where a firmware finds disks with a geometry of the user's, and what it is told of others.
import AHCI
import Assembly
import Machine
import Testing

@testable import QEMUCommandLine

@Suite struct FirmwareGeometryTests {
  private func drive(_ options: String) throws -> DriveConfiguration {
    try DriveConfiguration(parsing: "file=/a,\(options)", index: 0)
  }

  private func text(_ drive: DriveConfiguration, _ address: PCIAddress?, _ shape: MachineShape) -> String {
    String(decoding: FirmwareGeometry.bytes(of: [(drive, address)], on: shape), as: UTF8.self)
  }

  @Test func pathsAreThoseOfTheBoard() throws {
    let virtio = try drive("lcyls=1,lheads=2,lsecs=3")
    #expect(text(virtio, PCIAddress(device: 0x1e), .q35) == "/pci@i0cf8/scsi@1e/disk@0,0 1 2 3\0")
    #expect(text(virtio, PCIAddress(device: 4, function: 2), .pc) == "/pci@i0cf8/scsi@4,2/disk@0,0 1 2 3\0")
    // One that leaves is on no bus.
    #expect(text(virtio, nil, .pc) == "")
    let sata = try drive("if=ahci,port=3,lcyls=1")
    #expect(text(sata, nil, .q35) == "/pci@i0cf8/pci8086,2922@1f,2/drive@3/disk@0 1 0 0\0")
    #expect(text(sata, nil, .pc) == "/pci@i0cf8/ide@1,1/drive@1/disk@1 1 0 0\0")
    #expect(text(try drive("if=ahci,port=3"), nil, .q35) == "")
  }

  @Test(
    arguments: [
      (0, 2, FirmwareDisk.Translation.none), (1024 * 16 * 63, 1024, .none), (1025 * 16 * 63, 1025, .lba),
      (1 << 40, 16383, .lba),
    ] as [(UInt64, Int, FirmwareDisk.Translation)])
  func diskWithoutATableIsMeasured(_ sectors: UInt64, _ cylinders: Int, _ translation: FirmwareDisk.Translation) {
    let disk = FirmwareDisk(sectorCount: sectors, firstSector: [], geometry: nil, translation: nil)
    #expect(disk.cylinders == cylinders && disk.heads == 16 && disk.sectors == 63)
    #expect(disk.translation == translation)
  }

  @Test func tableWithoutAUsablePartitionCountsAsNone() {
    var sector = [UInt8](repeating: 0xff, count: 512)
    let blank = FirmwareDisk(sectorCount: 61440, firstSector: [], geometry: nil, translation: nil)
    // No signature; then entries that are empty, end at head 0 or sector 0, or reach past the largest cylinder.
    #expect(FirmwareDisk(sectorCount: 61440, firstSector: sector, geometry: nil, translation: nil) == blank)
    (sector[510], sector[511]) = (0x55, 0xaa)
    for entry in 0..<4 { for byte in 0..<16 { sector[0x1be + 16 * entry + byte] = 0 } }
    sector[0x1be + 12] = 1
    (sector[0x1ce + 12], sector[0x1ce + 5]) = (1, 3)
    (sector[0x1de + 12], sector[0x1de + 5], sector[0x1de + 6]) = (1, 1, 1)
    #expect(FirmwareDisk(sectorCount: 61440, firstSector: sector, geometry: nil, translation: nil) == blank)
    (sector[0x1ee + 12], sector[0x1ee + 5], sector[0x1ee + 6]) = (1, 3, 32)
    let table = FirmwareDisk(sectorCount: 61440, firstSector: sector, geometry: nil, translation: nil)
    #expect([table.cylinders, table.heads, table.sectors] == [480, 4, 32])
    #expect(
      FirmwareDisk(sectorCount: 61440, firstSector: Array(sector[..<511]), geometry: nil, translation: nil) == blank)
    let chosen = FirmwareDisk(
      sectorCount: 61440, firstSector: sector, geometry: ATADriveGeometry(cylinders: 5, heads: 6, sectors: 7),
      translation: .large)
    #expect([chosen.cylinders, chosen.heads, chosen.sectors] == [5, 6, 7])
    #expect(chosen.translation == .large)
  }
}
