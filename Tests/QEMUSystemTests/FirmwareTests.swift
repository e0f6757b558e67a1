// SPDX-License-Identifier: Apache-2.0
// What a firmware finds: fw_cfg's items, and the settings in the clock's memory, as QEMU's tests of them look.
import Foundation
import Glibc
import Testing

extension Machine {
  /// Bytes of an item of fw_cfg.
  func firmware(_ key: UInt32, _ count: Int) throws -> [UInt8] {
    try output(0x510, key, .word)
    return try (0..<count).map { _ in UInt8(try input(0x511, .byte)) }
  }

  /// A file of fw_cfg; nil where there is none.
  func firmwareFile(_ name: String) throws -> [UInt8]? {
    let count = Int(UInt32(bigEndian: try firmware(0x19, 4).withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) }))
    let directory = try firmware(0x19, 4 + 64 * count)
    for entry in 0..<count {
      let bytes = Array(directory[(4 + 64 * entry)..<(68 + 64 * entry)])
      guard String(decoding: bytes[8...].prefix { $0 != 0 }, as: UTF8.self) == name else { continue }
      return try firmware(UInt32(bytes[4]) << 8 | UInt32(bytes[5]), Int(bytes[3]) | Int(bytes[2]) << 8)
    }
    return nil
  }

  /// A byte of the clock's memory.
  func clock(_ register: UInt32) throws -> UInt8 {
    try output(0x70, register, .byte)
    return UInt8(try input(0x71, .byte))
  }
}

@Suite struct FirmwareTests {
  @Test func uuidIsTheMachines() throws {
    let machine = try Machine("-uuid 4600cb32-38ec-4b2f-8acb-81c6ea54f2d8")
    #expect(
      try machine.firmware(2, 16) == [
        0x46, 0x00, 0xcb, 0x32, 0x38, 0xec, 0x4b, 0x2f, 0x8a, 0xcb, 0x81, 0xc6, 0xea, 0x54, 0xf2, 0xd8,
      ])
  }

  @Test func machineIsDescribed() throws {
    let machine = try Machine("")
    #expect(try machine.firmware(0, 4) == Array("QEMU".utf8))
    #expect(try machine.firmware(1, 4) == [3, 0, 0, 0])
    #expect(try machine.firmware(2, 16) == [UInt8](repeating: 0, count: 16))
    // Memory, no graphics, processors, NUMA nodes, boot menu, processors at most.
    #expect(try machine.firmware(3, 8).littleEndian64(at: 0) == 128 << 20)
    for (key, value) in [(4, 0), (5, 1), (0xd, 0), (0xe, 0), (0xf, 1)] as [(UInt32, UInt16)] {
      #expect(try machine.firmware(key, 2).littleEndian16(at: 0) == value, "key \(key)")
    }
    #expect(try machine.firmwareFile("etc/boot-menu-wait") == nil)
  }

  @Test(
    arguments: [
      ("reboot-timeout=15", "etc/boot-fail-wait", [15, 0, 0, 0]),
      ("reboot-timeout=-1", "etc/boot-fail-wait", [255, 255, 255, 255]),
      ("splash-time=12", "etc/boot-menu-wait", [12, 0]),
    ] as [(String, String, [UInt8])])
  func waitsAreFiles(_ option: String, _ file: String, _ bytes: [UInt8]) throws {
    #expect(try Machine("-boot \(option)").firmwareFile(file) == bytes)
  }

  @Test(
    arguments: [
      ("", 0x1230, 0x1230), ("-no-fd-bootchk", 0x1231, 0x1231), ("-M pc,fd-bootchk=off", 0x1231, 0x1231),
      ("-boot c", 0x0200, 0x0200), ("-boot nda", 0x3410, 0x3410), ("-boot order=", 0, 0),
      ("-boot order= -boot order=c", 0x0200, 0x0200), ("-boot once=a", 0x0100, 0x1230),
      ("-boot once=a -no-fd-bootchk", 0x0101, 0x1231), ("-boot once=a,order=c", 0x0100, 0x0200),
      ("-boot once=d -boot order=nda", 0x0300, 0x3410), ("-boot once=a -boot once=b -boot once=c", 0x0200, 0x1230),
    ] as [(String, UInt16, UInt16)])
  func bootOrderStandsInTheClocksMemory(_ options: String, _ first: UInt16, _ later: UInt16) throws {
    let machine = try Machine("-nodefaults \(options)")
    func order() throws -> UInt16 { UInt16(try machine.clock(0x38)) | UInt16(try machine.clock(0x3d)) << 8 }
    #expect(try order() == first)
    try machine.monitor.execute("system_reset")
    try machine.monitor.event("RESET")
    #expect(try order() == later)
  }

  // MARK: Disks

  /// A partition table of one partition that ends at this head and sector 63.
  private func image(_ folder: Folder, _ name: String, sectors: UInt64, endHead: UInt8?) throws -> String {
    let path = try folder.image(name, byteCount: sectors * 512)
    guard let endHead else { return path }
    let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    try handle.seek(toOffset: 0x1be)
    try handle.write(contentsOf: [0x80, 1, 1, 0, 6, endHead, 63, 7, 63, 0, 0, 0, 0x41, 0x1f, 0, 0])
    try handle.seek(toOffset: 0x1fe)
    try handle.write(contentsOf: [0x55, 0xaa])
    try handle.close()
    return path
  }

  private func nine(_ cylinders: Int, _ heads: UInt8, _ sectors: UInt8) -> [UInt8] {
    let (low, high) = (UInt8(cylinders & 255), UInt8(cylinders >> 8))
    return [low, high, heads, 255, 255, heads > 8 ? 0xc8 : 0xc0, low, high, sectors]
  }

  private func geometry(_ machine: Machine, _ index: Int) throws -> [UInt8] {
    try (0..<9).map { try machine.clock(UInt32((index == 0 ? 0x1b : 0x24) + $0)) }
  }

  /// Translations: 0 none, 1 LBA, 2 large; two bits a disk.
  @Test(arguments: [(nil, 0x04), (127, 0x06), (15, 0x00)] as [(UInt8?, UInt8)], [false, true])
  func disksOfTheOlderPCStandInTheClocksMemory(_ table: (endHead: UInt8?, translations: UInt8), _ hasDevices: Bool)
    throws
  {
    let folder = try Folder()
    let small = try image(folder, "small", sectors: 61440, endHead: table.endHead)
    let large = try image(folder, "large", sectors: 8_388_608, endHead: table.endHead)
    let options =
      hasDevices
      ? "-drive id=d0,if=none,format=raw,file=\(small) -device ide-hd,drive=d0,bus=ide.0,unit=0 "
        + "-drive id=d1,if=none,format=raw,file=\(large) -device ide-hd,drive=d1,bus=ide.0,unit=1 "
        + "-drive id=d2,if=none,media=cdrom -device ide-cd,drive=d2,bus=ide.1,unit=0"
      : "-drive id=d0,if=ide,index=0,format=raw,file=\(small) -drive id=d1,if=ide,index=1,format=raw,file=\(large) "
        + "-drive id=d2,if=ide,index=2,media=cdrom"
    let machine = try Machine("-nodefaults -machine pc \(options)", folder: folder)
    #expect(try machine.clock(0x12) == 0xff)
    #expect(try machine.clock(0x19) == 47)
    #expect(try machine.clock(0x1a) == 47)
    #expect(try geometry(machine, 0) == nine(60, 16, 63))
    #expect(try geometry(machine, 1) == nine(8322, 16, 63))
    #expect(try machine.clock(0x39) == table.translations)
  }

  @Test func geometryOfTheUserCounts() throws {
    let folder = try Folder()
    let path = try image(folder, "small", sectors: 61440, endHead: 15)
    for (key, translation) in [("", 0), (",bios-chs-trans=lba", 1), (",bios-chs-trans=rechs", 3)] as [(String, UInt8)] {
      let machine = try Machine(
        "-nodefaults -machine pc -drive id=d0,if=none,format=raw,file=\(path) "
          + "-device ide-hd\(key),cyls=480,heads=4,secs=32,drive=d0,bus=ide.0,unit=0", folder: folder)
      #expect(try geometry(machine, 0) == nine(480, 4, 32))
      #expect(try machine.clock(0x39) == translation)
      #expect(try machine.clock(0x12) == 0xf0)
      #expect(machine.process.end() == 0)
    }
  }

  @Test func diskOfTheSecondChannelHasATranslationOnly() throws {
    let folder = try Folder()
    let large = try image(folder, "large", sectors: 8_388_608, endHead: nil)
    let machine = try Machine(
      "-nodefaults -machine pc -drive id=d2,if=ide,index=2,format=raw,file=\(large) -drive id=d0,if=ide,index=0,media=cdrom",
      folder: folder)
    #expect(try machine.clock(0x12) == 0)
    #expect(try geometry(machine, 0) == [UInt8](repeating: 0, count: 9))
    #expect(try machine.clock(0x39) == 0x10)
  }

  @Test func geometriesForTheFirmwareAreAFileThatAResetBringsUpToDate() throws {
    func disk(_ index: Int, _ geometry: String) -> String {
      "-drive if=none,id=disk\(index),file=null-co://,format=raw -device virtio-blk-pci,id=d\(index),drive=disk\(index),"
        + "bus=pci.0,addr=\(index + 2),\(geometry) "
    }
    let machine = try Machine(
      "-nodefaults -machine pc " + disk(0, "lcyls=10000,lheads=120,lsecs=30") + disk(1, "lcyls=20,lheads=20,lsecs=20")
        + disk(2, "lcyls=0,lheads=0,lsecs=0") + "-drive if=none,id=i,file=null-co://,format=raw "
        + "-device ide-hd,drive=i,bus=ide.1,unit=1,lcyls=1,lheads=0,lsecs=0")
    func lines() throws -> [String] {
      let text = String(
        decoding: try #require(try machine.firmwareFile("bios-geometry")).prefix { $0 != 0 }, as: UTF8.self)
      return text.split(separator: "\n").map(String.init).sorted()
    }
    let later = ["/pci@i0cf8/ide@1,1/drive@1/disk@1 1 0 0", "/pci@i0cf8/scsi@3/disk@0,0 20 20 20"]
    #expect(try lines() == later.prefix(1) + ["/pci@i0cf8/scsi@2/disk@0,0 10000 120 30"] + later.suffix(1))
    try machine.monitor.execute("device_del", ["id": "d0"])
    try machine.monitor.execute("system_reset")
    try machine.monitor.event("RESET")
    #expect(try lines() == later)
  }

  @Test func machineWithoutDisksHasNoneThere() throws {
    let machine = try Machine("-nodefaults -machine pc")
    for register in [0x12, 0x19, 0x1a, 0x1b, 0x24, 0x39] as [UInt32] { #expect(try machine.clock(register) == 0) }
    #expect(try machine.clock(0x14) == 6)
  }
}
