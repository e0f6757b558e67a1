// SPDX-License-Identifier: Apache-2.0
// READ LOG EXT and READ LOG DMA EXT, and the logs (ACS-3 §7 and its log definitions).
import Block
import Glibc
import Testing

@testable import AHCI

@Suite struct ATALogTests {
  private static let codes: [UInt8] = [0x2f, 0x47]

  @Test(arguments: codes) func directoryListsTheLogs(code: UInt8) throws {
    let kit = try ATAKit()
    #expect(kit.run(code, lba: 0, count: 1).isGood)
    let words = ATAKit.words(kit.link.received)
    #expect(words.count == 256 && words[0] == 1)
    let logs = words.indices.dropFirst().filter { words[$0] != 0 }
    #expect(logs == [0x10, 0x30])
    for log in logs { #expect(kit.run(code, lba: UInt64(log), count: words[log]).isGood) }
    #expect(kit.link.received.count == 3 * 512)
    let pio = kit.link.slot.pointee.pio
    let isPIO = code == 0x2f
    #expect(pio.blockBytes == (isPIO ? 512 : 0))
    #expect(pio.interrupts == isPIO)
  }

  @Test(arguments: codes) func logsAndPagesThatAreNotThereAreAbortedWithoutData(code: UInt8) throws {
    let kit = try ATAKit()
    let bad: [(lba: UInt64, count: UInt16)] = [
      (0x00, 0), (0x00, 2), (0x0100, 1), (0x01, 1), (0x03, 1), (0x10, 2), (0x0110, 1), (0x11, 1), (0x30, 4),
      (0x0330, 1), (0x0230, 2), (0x01_0000_0030, 1), (0xff_0000_ff30, 0xffff), (0x80, 1), (0xff, 1),
    ]
    for (lba, count) in bad {
      #expect(kit.run(code, lba: lba, count: count).isAborted, "\(lba) \(count)")
      #expect(kit.link.received.isEmpty)
      #expect(kit.link.slot.pointee.pio.blockBytes == 0)
    }
  }

  // MARK: Page 10h

  private func fail(_ kit: ATAKit, _ code: UInt8, lba: UInt64, tag: UInt8, device: UInt8 = 0xc0) {
    let answer = kit.run(code, features: 8, lba: lba, count: UInt16(tag) << 3, deviceRegister: device)
    #expect(answer.hasFailed)
    let slot = UnsafeMutablePointer<CommandSlot>.allocate(capacity: 1)
    // As the port has it: the slot's number is the tag.
    slot.initialize(
      to: CommandSlot(number: Int(tag), request: kit.link.slot.pointee.request, iovecs: kit.link.slot.pointee.iovecs))
    slot.pointee.answer = answer
    slot.pointee.isQueued = true
    kit.drive.queueFailed(slot)
    slot.deallocate()
  }

  @Test(arguments: codes) func queuedErrorIsToldOnceWithItsTag(code: UInt8) throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: 1 << 45), rules: [FaultRule(.read, .error(EIO))])
    fail(kit, 0x60, lba: 0x0123_4567_89ab, tag: 21)
    // Known failure 37: page 10h names the tag.
    #expect(kit.run(code, lba: 0x10, count: 1).isGood)
    let page = kit.link.received
    let expected: [UInt8] = [21, 0, 0x51, 0x40, 0xab, 0x89, 0x67, 0xc0, 0x45, 0x23, 0x01, 0, 21 << 3, 0]
    #expect(Array(page[0...13]) == expected)
    #expect(page[14...510].allSatisfy { $0 == 0 })
    #expect(ATAKit.sum(page) == 0)
    // It has been read: now there is nothing that it could mean.
    #expect(kit.run(code, lba: 0x10, count: 1).isGood)
    #expect(kit.link.received[0] == 0x80)
    #expect(kit.link.received[1...510].allSatisfy { $0 == 0 })
    #expect(ATAKit.sum(kit.link.received) == 0)
  }

  @Test func addressBeyondTheEndIsInTheLog() throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: 0x1_0000_0000))
    fail(kit, 0x61, lba: 0xffff_ffff, tag: 3)
    #expect(kit.run(0x2f, lba: 0x10, count: 1).isGood)
    #expect(Array(kit.link.received[0...10]) == [3, 0, 0x51, 0x10, 0, 0, 0, 0xc0, 0, 1, 0])
  }

  @Test func errorOfACommandThatIsNotQueuedHasTheNQBit() throws {
    let kit = try ATAKit()
    kit.run(0x25, lba: 9999, count: 1)
    kit.link.slot.pointee.isQueued = false
    kit.drive.queueFailed(kit.link.slot)
    #expect(kit.run(0x2f, lba: 0x10, count: 1).isGood)
    #expect(kit.link.received[0] & 0x80 != 0)
    #expect(kit.link.received[2] == 0x51 && kit.link.received[3] == 0x10)
  }

  @Test func resetsAndOtherLogsTreatTheErrorAsTheyShould() throws {
    let kit = try ATAKit()
    for resets in [kit.drive.softReset, kit.drive.hardReset] {
      fail(kit, 0x60, lba: 4096, tag: 1)
      // Other logs, and a page that is not there, leave it.
      kit.run(0x2f, lba: 0, count: 1)
      kit.run(0x2f, lba: 0x0110, count: 1)
      #expect(kit.drive.queueFailure?.tag == 1)
      resets()
      #expect(kit.run(0x2f, lba: 0x10, count: 1).isGood)
      #expect(kit.link.received[0] == 0x80)
    }
  }

  @Test func laterFailureReplacesOneThatNobodyRead() throws {
    let kit = try ATAKit()
    fail(kit, 0x60, lba: 4096, tag: 1)
    fail(kit, 0x60, lba: 5000, tag: 2)
    #expect(kit.run(0x2f, lba: 0x10, count: 1).isGood)
    #expect(kit.link.received[0] == 2)
    // Commands are served although the log has not been read.
    fail(kit, 0x60, lba: 4096, tag: 1)
    #expect(kit.run(0x25, count: 1).isGood)
  }

  // MARK: IDENTIFY DEVICE data log

  @Test(arguments: codes) func identifyLogHasTheWordsAndTheCapacity(code: UInt8) throws {
    let kit = try ATAKit(driver: RecordingDriver(sectors: 123_456, physicalBytes: 4096))
    let words = kit.identity()
    #expect(kit.run(code, lba: 0x30, count: 3).isGood)
    let pages = kit.link.received
    #expect(pages.count == 3 * 512)
    #expect(Array(pages[0...11]) == [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 2])
    #expect(pages[12..<512].allSatisfy { $0 == 0 })
    #expect(ATAKit.words(Array(pages[512..<1024])) == words)
    let capacity = Array(pages[1024...])
    let valid: UInt64 = 1 << 63
    #expect(ATAKit.quadword(capacity, 0) == 0x8000_0000_0002_0001)
    #expect(ATAKit.quadword(capacity, 1) == valid | 123_456)
    #expect(ATAKit.quadword(capacity, 2) == 0xe000_0000_0003_0000)
    #expect(ATAKit.quadword(capacity, 3) == valid | 256)
    #expect(capacity[32...].allSatisfy { $0 == 0 })
    #expect(kit.run(code, lba: 0x0230, count: 1).isGood)
    #expect(kit.link.received == capacity)
    #expect(kit.set(0x55).isGood)
    #expect(kit.run(code, lba: 0x0130, count: 1).isGood)
    #expect(ATAKit.words(kit.link.received)[85] == 0x4029)
  }

  @Test func listThatIsTooShortEndsTheLog() throws {
    let kit = try ATAKit()
    kit.link.listBytes = 700
    #expect(kit.run(0x47, lba: 0x30, count: 3).isGood)
    #expect(kit.link.received.count == 700)
    #expect(kit.link.slot.pointee.overflowed)
  }
}
