// SPDX-License-Identifier: Apache-2.0
// The drive as an ATA device: which commands it has, and how packets are handed over (ACS-3).
import Testing

@testable import AHCI

@Suite struct ATAPICommandTests {
  private func words(_ bytes: [UInt8]) -> [UInt16] {
    stride(from: 0, to: bytes.count, by: 2).map { UInt16(bytes[$0]) | UInt16(bytes[$0 + 1]) << 8 }
  }

  private func text(_ words: ArraySlice<UInt16>) -> String {
    String(decoding: words.flatMap { [UInt8($0 >> 8), UInt8($0 & 0xff)] }, as: UTF8.self)
  }

  /// ACS-3: IDENTIFY PACKET DEVICE.
  @Test func identifyPacketDeviceDescribesACDDriveAndItsSumIsZero() throws {
    var options = ATAPIDriveOptions()
    options.serial = "S1"
    let kit = try ATAPIKit(nil, options: options)
    let registers = kit.link.run(0xa1)
    #expect(registers.status == 0x50 && registers.error == 0)
    let pio = kit.link.slot.pointee.pio
    #expect(pio.blockBytes == 512 && pio.isInput && pio.interrupts)
    let data = kit.link.received
    #expect(data.count == 512)
    #expect(data.reduce(0, &+) == 0 && data[510] == 0xa5)
    let identity = words(data)
    #expect(identity[0] == 0x85c0)
    #expect(text(identity[10..<20]) == "S1" + String(repeating: " ", count: 18))
    #expect(text(identity[23..<27]) == "1.0     ")
    #expect(text(identity[27..<47]).hasPrefix("SPINDLE DVD-ROM "))
    #expect(identity[49] & 0x0300 == 0x0300)
    #expect(identity[53] & 0x0006 == 0x0006)
    #expect(identity[62] == 0)
    #expect(identity[63] == 0x0007)
    #expect(identity[76] & 0x0100 == 0 && identity[76] & 0x0006 != 0)
    #expect(identity[80] & 0x0400 != 0)
    #expect(identity[82] == 0x4218 && identity[85] == 0x4218)
    #expect(identity[83] & 0xc000 == 0x4000 && identity[84] & 0xc000 == 0x4000 && identity[87] & 0xc000 == 0x4000)
    #expect(identity[88] == 0x203f)
    #expect(identity[125] == 0)
  }

  /// ACS-3, IDENTIFY DEVICE and READ SECTOR(S): hosts that take the drive for a disk see its signature.
  /// Known failure 50 (SeaBIOS 1281e340ad): who asks a drive what it is by the wrong command hears so at once.
  @Test(arguments: [0xec, 0x20] as [UInt8])
  func diskCommandsAbortAndLeaveTheSignature(command: UInt8) throws {
    let kit = try ATAPIKit()
    let registers = kit.link.run(command, lba: 0x12_3456_7890, count: 7)
    #expect(registers.status & 0x01 != 0 && registers.error == 0x04)
    #expect(registers.lba == 0xeb_1401 && registers.count == 1)
    #expect(kit.link.received.isEmpty)
  }

  /// ACS-3, DEVICE RESET and EXECUTE DEVICE DIAGNOSTIC: no status bit, the diagnostic's code, the signature.
  @Test(arguments: [0x08, 0x90] as [UInt8])
  func resetAndDiagnosticLeaveTheSignatureWithoutStatus(command: UInt8) throws {
    let kit = try ATAPIKit()
    let registers = kit.link.run(command)
    #expect(registers.status == 0 && registers.error == 0x01)
    #expect(registers.lba == 0xeb_1401 && registers.count == 1)
    #expect(kit.drive.signature == 0xeb14_0101)
  }

  /// ACS-3, power management feature set: Standby until the disc is needed.
  @Test func powerModeFollowsTheCommands() throws {
    let kit = try ATAPIKit()
    #expect(kit.link.run(0xe5).count == 0xff)
    for standby: UInt8 in [0xe0, 0xe2, 0xe6] {
      #expect(kit.link.run(standby).status == 0x50)
      #expect(kit.link.run(0xe5).count == 0x00)
      #expect(kit.testUnitReady().status == 0x50)
      #expect(kit.link.run(0xe5).count == 0xff)
    }
    kit.link.run(0xe0)
    kit.packet([0x12, 0, 0, 0, 36])
    #expect(kit.link.run(0xe5).count == 0x00)
    for idle: UInt8 in [0xe1, 0xe3] {
      kit.link.run(0xe0)
      #expect(kit.link.run(idle).status == 0x50)
      #expect(kit.link.run(0xe5).count == 0xff)
    }
  }

  /// ACS-3, SET FEATURES; words 63 and 88 tell the mode.
  @Test func setFeaturesSelectsTransferModes() throws {
    let kit = try ATAPIKit()
    for mode: UInt16 in [0x00, 0x01, 0x08, 0x0c, 0x20, 0x22, 0x40, 0x45] {
      #expect(kit.link.run(0xef, features: 0x03, count: mode).status == 0x50)
    }
    for mode: UInt16 in [0x02, 0x07, 0x0d, 0x10, 0x1f, 0x23, 0x3f, 0x46, 0x80, 0xff] {
      #expect(kit.link.run(0xef, features: 0x03, count: mode).error == 0x04)
    }
    for feature: UInt16 in [0x00, 0x02, 0x05, 0x10, 0x5d, 0x66, 0xcc, 0xff] {
      #expect(kit.link.run(0xef, features: feature, count: 0x45).error == 0x04)
    }
    kit.link.run(0xef, features: 0x03, count: 0x21)
    kit.link.run(0xa1)
    #expect(words(kit.link.received)[63] == 0x0207 && words(kit.link.received)[88] == 0x003f)
    kit.drive.softReset()
    kit.link.run(0xa1)
    #expect(words(kit.link.received)[63] == 0x0207)
    kit.drive.hardReset()
    kit.link.run(0xa1)
    #expect(words(kit.link.received)[63] == 0x0007 && words(kit.link.received)[88] == 0x203f)
  }

  /// Among them READ NATIVE MAX ADDRESS, with a disc and without: known failure 47, CVE-2015-6855, was a
  /// division by zero there.
  @Test func everyOtherCommandAborts() throws {
    let known: Set<UInt8> = [
      0x08, 0x20, 0x90, 0xa0, 0xa1, 0xe0, 0xe1, 0xe2, 0xe3, 0xe5, 0xe6, 0xec, 0xef,
    ]
    for kit in [try ATAPIKit(), try ATAPIKit.empty()] {
      for command in UInt8.min...UInt8.max where !known.contains(command) {
        let registers = kit.link.run(command, features: 0xffff, lba: .max, count: 0xffff)
        #expect(registers.status & 0x01 != 0 && registers.error == 0x04, "command \(command)")
        #expect(kit.link.received.isEmpty)
        #expect(kit.link.slot.pointee.pio.blockBytes == 0)
      }
    }
  }

  // MARK: PACKET

  @Test func packetWithoutThePacketAborts() throws {
    let kit = try ATAPIKit()
    let registers = kit.link.run(0xa0, features: 1)
    #expect(registers.status & 0x01 != 0 && registers.error == 0x04)
    #expect(kit.link.slot.pointee.pio.blockBytes == 0)
  }

  @Test func overlappedPacketAborts() throws {
    let kit = try ATAPIKit()
    #expect(kit.link.run(0xa0, features: 0x02, packet: [0x00]).error == 0x04)
    #expect(kit.link.run(0xa0, features: 0x03, packet: [0x00]).error == 0x04)
  }

  /// A command without data leaves the packet's own set-up FIS, which interrupts nobody.
  @Test(arguments: [nil, 0, 2048] as [UInt64?])
  func packetWithoutDataLeavesThePacketSetUp(limit: UInt64?) throws {
    let kit = try ATAPIKit()
    let registers = kit.packet([0x00], limit: limit)
    #expect(registers.status == 0x50 && registers.error == 0 && registers.count == 3)
    let pio = kit.link.slot.pointee.pio
    #expect(pio.blockBytes == 12 && !pio.isInput && !pio.interrupts)
  }

  @Test func packetByDMALeavesThePacketSetUp() throws {
    let kit = try ATAPIKit()
    #expect(kit.packet([0x12, 0, 0, 0, 36]).status == 0x50)
    #expect(kit.link.received.count == 36)
    #expect(kit.link.slot.pointee.movedBytes == 36)
    let pio = kit.link.slot.pointee.pio
    #expect(pio.blockBytes == 12 && !pio.isInput && !pio.interrupts)
  }

  /// ACS-3, PACKET, byte count limit: limit, bytes of the answer, bytes of the last block.
  @Test(arguments: [
    (2048, 36, 36), (36, 36, 36), (35, 36, 2), (34, 36, 2), (16, 36, 4), (17, 36, 4), (12, 36, 12), (2, 36, 2),
    (0xffff, 36, 36), (0xfffe, 36, 36), (7, 7, 7), (1, 1, 1),
  ])
  func pioDataEndWithWhatTheLimitLeaves(limit: Int, bytes: Int, last: Int) throws {
    let kit = try ATAPIKit()
    let registers = kit.packet([0x12, 0, 0, 0, UInt8(bytes)], limit: UInt64(limit))
    #expect(registers.status == 0x50)
    #expect(kit.link.received.count == bytes)
    let pio = kit.link.slot.pointee.pio
    #expect(pio.isInput && pio.interrupts)
    #expect(Int(pio.blockBytes) == last)
  }

  /// A limit that no block fits into is refused before anything moves (IDENTIFY word 125 is 0).
  @Test func limitsOfNoBlockAbortCommandsWithData() throws {
    let kit = try ATAPIKit()
    #expect(kit.isAborted([0x12, 0, 0, 0, 36], limit: 0))
    #expect(kit.isAborted([0x12, 0, 0, 0, 36], limit: 1))
    #expect(kit.isAborted([0x28, 0, 0, 0, 0, 0, 0, 0, 1], limit: 0))
    #expect(kit.isAborted([0x28, 0, 0, 0, 0, 0, 0, 0, 1], limit: 1))
    #expect(kit.isAborted([0xbe, 0, 0, 0, 0, 0, 0, 0, 1, 0xf8], limit: 1))
    #expect(kit.link.received.isEmpty && kit.link.slot.pointee.movedBytes == 0)
    #expect(kit.link.slot.pointee.pio.blockBytes == 12)
    #expect(kit.fetchSense() == [0, 0, 0])
  }

  /// A limit of FFFFh means FFFEh.
  @Test func highestLimitIsEven() throws {
    let kit = try ATAPIKit()
    kit.packet([0x28, 0, 0, 0, 0, 0, 0, 0, 33], limit: 0xffff)
    #expect(kit.link.received.count == 33 * 2048)
    #expect(Int(kit.link.slot.pointee.pio.blockBytes) == 33 * 2048 - 0xfffe)
  }

  /// A guest's list that ends early is not the drive's to report.
  @Test func shortListGetsWhatFits() throws {
    let kit = try ATAPIKit()
    kit.link.listBytes = 10
    let registers = kit.packet([0x12, 0, 0, 0, 36])
    #expect(registers.status == 0x50)
    #expect(kit.link.received.count == 10 && kit.link.slot.pointee.overflowed)
  }
}
