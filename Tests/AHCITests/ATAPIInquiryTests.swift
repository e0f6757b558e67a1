// SPDX-License-Identifier: Apache-2.0
// INQUIRY, REQUEST SENSE and GET CONFIGURATION (SPC-3 §6.4, §6.27; MMC-6).
import Testing

@testable import AHCI
@testable import Block

@Suite struct ATAPIInquiryTests {
  @Test func inquiryDescribesARemovableCDDrive() throws {
    let data = try ATAPIKit().answer([0x12, 0, 0, 0, 255])
    #expect(data.count == 36 && data[4] == 31)
    #expect(data[0] == 0x05 && data[1] == 0x80 && data[3] & 0xf == 2)
    #expect(String(decoding: data[8..<36], as: UTF8.self) == "SPINDLE DVD-ROM         1.0 ")
  }

  @Test func inquiryWorksWithoutADisc() throws {
    #expect(try ATAPIKit.empty().answer([0x12, 0, 0, 0, 5]).count == 5)
  }

  @Test func inquiryAllocationHasTwoBytes() throws {
    #expect(try ATAPIKit().answer([0x12, 0, 0, 1, 0]).count == 36)
  }

  /// SPC-3 §7.6.
  @Test func vitalProductDataPagesAreThoseOfTheList() throws {
    let kit = try ATAPIKit()
    let list = kit.answer([0x12, 1, 0x00, 0, 255])
    #expect(list[0] == 0x05 && bigEndian(list[2..<4]) == list.count - 4)
    #expect(Array(list[4...]) == [0x00, 0x80, 0x83])
    for page in list[4...] {
      let data = kit.answer([0x12, 1, page, 0, 255])
      #expect(data[1] == page && bigEndian(data[2..<4]) == data.count - 4)
    }
    #expect(String(decoding: kit.answer([0x12, 1, 0x80, 0, 255])[4...], as: UTF8.self) == "SPINDLE-DVD-0")
    let designator = kit.answer([0x12, 1, 0x83, 0, 255])
    #expect(Int(designator[7]) == designator.count - 8)
    #expect(kit.failure([0x12, 1, 0x81, 0, 255]) == [5, 0x24, 0])
    #expect(kit.failure([0x12, 0, 0x80, 0, 255]) == [5, 0x24, 0])
    #expect(kit.failure([0x12, 2, 0x00, 0, 255]) == [5, 0x24, 0])
  }

  /// SPC-3 §4.5: until it is fetched, or the next command.
  @Test func senseIsToldOnceAndEndsWithTheNextCommand() throws {
    let kit = try ATAPIKit()
    #expect(kit.packet([0xff]).error == 0x50)
    #expect(kit.answer([0x03, 0, 0, 0, 18]) == [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0])
    #expect(kit.fetchSense() == [0, 0, 0])
    kit.packet([0xff])
    kit.packet([0x12, 0, 0, 0, 36])
    #expect(kit.fetchSense() == [0, 0, 0])
    #expect(kit.failure([0x03, 1, 0, 0, 18]) == [5, 0x24, 0])
  }

  @Test func senseThatWasNotFetchedBecauseOfTheLimitStays() throws {
    let kit = try ATAPIKit()
    kit.packet([0xff])
    #expect(kit.isAborted([0x03, 0, 0, 0, 18], limit: 0))
    #expect(kit.fetchSense() == [5, 0x20, 0])
  }

  @Test func resetsForgetSense() throws {
    let kit = try ATAPIKit()
    kit.packet([0xff])
    kit.drive.softReset()
    #expect(kit.fetchSense() == [0, 0, 0])
    kit.packet([0xff])
    kit.link.run(0x08)
    #expect(kit.fetchSense() == [0, 0, 0])
  }

  // MARK: GET CONFIGURATION

  /// Codes of the features in an answer, and which of them are current.
  private func features(_ data: [UInt8]) -> [(code: Int, isCurrent: Bool)] {
    var found: [(code: Int, isCurrent: Bool)] = []
    var position = 8
    while position < data.count {
      found.append((bigEndian(data[position..<position + 2]), data[position + 2] & 1 != 0))
      #expect(data[position + 3] % 4 == 0)
      position += 4 + Int(data[position + 3])
    }
    #expect(position == data.count)
    return found
  }

  private func configuration(_ kit: ATAPIKit, type: UInt8, start: UInt8) -> [UInt8] {
    let data = kit.answer([0x46, type, 0, start, 0, 0, 0, 1, 0])
    #expect(bigEndian(data[0..<4]) == data.count - 4)
    return data
  }

  @Test func profileFollowsTheDisc() throws {
    let kit = try ATAPIKit()
    #expect(bigEndian(configuration(kit, type: 0, start: 0)[6..<8]) == 0x0008)
    let dvd = try ATAPIKit(NullDriver(byteCount: 4_000_000_000))
    #expect(bigEndian(configuration(dvd, type: 0, start: 0)[6..<8]) == 0x0010)
    #expect(bigEndian(configuration(try .empty(), type: 0, start: 0)[6..<8]) == 0)
  }

  @Test func featuresAreAllOrCurrentOrOne() throws {
    let kit = try ATAPIKit()
    let all = features(configuration(kit, type: 0, start: 0))
    #expect(all.map(\.code) == [0x00, 0x01, 0x02, 0x03, 0x10, 0x1e, 0x1f])
    #expect(all.filter(\.isCurrent).map(\.code) == [0x00, 0x01, 0x02, 0x03, 0x10, 0x1e])
    #expect(features(configuration(kit, type: 1, start: 0)).map(\.code) == [0x00, 0x01, 0x02, 0x03, 0x10, 0x1e])
    #expect(features(configuration(kit, type: 0, start: 3)).map(\.code) == [0x03, 0x10, 0x1e, 0x1f])
    #expect(features(configuration(kit, type: 2, start: 3)).map(\.code) == [0x03])
    #expect(features(configuration(kit, type: 2, start: 4)).isEmpty)
    #expect(features(configuration(try .empty(), type: 1, start: 0)).map(\.code) == [0x00, 0x01, 0x02, 0x03])
    #expect(kit.failure([0x46, 3, 0, 0, 0, 0, 0, 1, 0]) == [5, 0x24, 0])
  }

  @Test func truncatedConfigurationTellsItsWholeLength() throws {
    let kit = try ATAPIKit()
    let all = configuration(kit, type: 0, start: 0)
    #expect(kit.answer([0x46, 0, 0, 0, 0, 0, 0, 0, 8]) == Array(all[..<8]))
  }
}
