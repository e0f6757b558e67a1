// SPDX-License-Identifier: Apache-2.0
// MODE SENSE and MODE SELECT (SPC-3 §6.7 to §6.10, §7.4).
import Testing

@testable import AHCI

@Suite struct ATAPIModeTests {
  private enum Control: UInt8 { case current = 0, changeable = 0x40, defaults = 0x80, saved = 0xc0 }

  private func sense10(_ page: UInt8, _ control: Control = .current, allocation: UInt16 = 0x400) -> [UInt8] {
    [0x5a, 0, control.rawValue | page, 0, 0, 0, 0, UInt8(allocation >> 8), UInt8(allocation & 0xff)]
  }

  private func page(_ kit: ATAPIKit, _ code: UInt8, _ control: Control = .current) -> [UInt8] {
    Array(kit.answer(sense10(code, control))[8...])
  }

  /// MODE SELECT with a header and `pages`.
  private func select(_ kit: ATAPIKit, _ pages: [UInt8], list: [UInt8]? = nil, flags: UInt8 = 0x10) -> TaskFile {
    let list = list ?? [UInt8](repeating: 0, count: 8) + pages
    kit.link.guestData = list
    return kit.packet([0x55, flags, 0, 0, 0, 0, 0, UInt8(list.count >> 8), UInt8(list.count & 0xff)])
  }

  @Test func pagesComeOneByOneOrAll() throws {
    let kit = try ATAPIKit()
    var all: [UInt8] = []
    for (code, byteCount) in [(0x01, 12), (0x0e, 16), (0x2a, 22)] as [(UInt8, Int)] {
      let data = kit.answer(sense10(code))
      #expect(data.count == 8 + byteCount && bigEndian(data[0..<2]) == data.count - 2)
      #expect(bigEndian(data[6..<8]) == 0)
      #expect(data[8] == code && Int(data[9]) == byteCount - 2)
      all += data[8...]
    }
    #expect(page(kit, 0x3f) == all)
    #expect(Array(kit.answer([0x5a, 0, 0x3f, 0xff, 0, 0, 0, 1, 0])[8...]) == all)
    let short = kit.answer([0x1a, 0, 0x3f, 0, 255])
    #expect(Int(short[0]) == short.count - 1 && Array(short[4...]) == all)
  }

  @Test func unknownPagesAndSavedValuesAreRefused() throws {
    let kit = try ATAPIKit()
    for code: UInt8 in [0x00, 0x02, 0x05, 0x08, 0x1a, 0x3e] { #expect(kit.failure(sense10(code)) == [5, 0x24, 0]) }
    #expect(kit.failure(sense10(0x2a, .saved)) == [5, 0x39, 0])
    #expect(kit.failure([0x5a, 0, 0x2a, 1, 0, 0, 0, 1, 0]) == [5, 0x24, 0])
  }

  /// MMC-3, CD capabilities and mechanical status page: a tray that the guest may lock.
  @Test func capabilitiesTellOfTheTrayAndItsLock() throws {
    let kit = try ATAPIKit()
    #expect(page(kit, 0x2a)[6] == 0x29)
    #expect(page(kit, 0x2a)[2] & 0x08 != 0)
    kit.packet([0x1e, 0, 0, 0, 1])
    #expect(page(kit, 0x2a)[6] == 0x2b)
    #expect(page(kit, 0x2a, .defaults)[6] == 0x29)
  }

  @Test func truncatedPagesTellTheirWholeLength() throws {
    let data = try ATAPIKit().answer(sense10(0x2a, allocation: 8))
    #expect(data.count == 8 && bigEndian(data[0..<2]) == 28)
  }

  // MARK: MODE SELECT

  @Test func selectedValuesAreReadBackUntilAReset() throws {
    let kit = try ATAPIKit()
    var recovery = page(kit, 0x01)
    recovery[3] = 9
    var audio = page(kit, 0x0e)
    audio[9] = 0x40
    #expect(select(kit, recovery + audio).status == 0x50)
    #expect(page(kit, 0x01) == recovery && page(kit, 0x0e) == audio)
    #expect(page(kit, 0x01, .defaults)[3] == 5)
    kit.link.run(0x08)
    #expect(page(kit, 0x01) == recovery)
    kit.drive.hardReset()
    #expect(page(kit, 0x01)[3] == 5)
  }

  @Test func whatIsChangeableIsWhatSelectChanges() throws {
    let kit = try ATAPIKit()
    for code: UInt8 in [0x01, 0x0e, 0x2a] {
      let mask = page(kit, code, .changeable)
      for index in 2..<mask.count {
        var bytes = page(kit, code)
        bytes[index] ^= mask[index]
        #expect(select(kit, bytes).status == 0x50)
        bytes = page(kit, code)
        bytes[index] ^= ~mask[index]
        if mask[index] != 0xff { #expect(select(kit, bytes).error == 0x50) }
      }
    }
  }

  @Test func nothingOfAListCountsIfAnythingIsWrong() throws {
    let kit = try ATAPIKit()
    var recovery = page(kit, 0x01)
    recovery[3] = 9
    let wrong: [(pages: [UInt8], code: UInt8)] = [
      (recovery + [0x05, 0], 0x26), (recovery + [0x01], 0x1a), (recovery + [0x0e, 200], 0x1a),
      (recovery + [0x0e, 2, 0, 0], 0x26), (recovery + [0x41, 10] + [UInt8](repeating: 0, count: 10), 0x26),
    ]
    for (pages, code) in wrong {
      #expect(select(kit, pages).error == 0x50)
      #expect(kit.fetchSense() == [5, code, 0])
      #expect(page(kit, 0x01)[3] == 5)
    }
  }

  @Test func headersAndLengthsAreChecked() throws {
    let kit = try ATAPIKit()
    #expect(select(kit, [], list: [0, 0, 0, 0, 0, 0, 0]).error == 0x50)
    #expect(kit.fetchSense() == [5, 0x1a, 0])
    #expect(select(kit, [], list: [0, 0, 0, 0, 0, 0, 0xff, 0xff]).error == 0x50)
    #expect(kit.fetchSense() == [5, 0x1a, 0])
    #expect(select(kit, [UInt8](repeating: 0, count: 505)).error == 0x50)
    #expect(kit.fetchSense() == [5, 0x1a, 0])
    for flags: UInt8 in [0x00, 0x01, 0x11] {
      #expect(select(kit, [], flags: flags).error == 0x50)
      #expect(kit.fetchSense() == [5, 0x24, 0])
    }
    #expect(select(kit, [], list: [0, 0, 0, 0, 0, 0, 0, 8] + [UInt8](repeating: 0, count: 8)).status == 0x50)
    #expect(kit.packet([0x55, 0x10], limit: 0).status == 0x50)
  }

  @Test func listThatTheGuestsMemoryCutsShortIsRefused() throws {
    let kit = try ATAPIKit()
    kit.link.guestData = [0, 0, 0, 0]
    #expect(kit.failure([0x55, 0x10, 0, 0, 0, 0, 0, 0, 20]) == [5, 0x1a, 0])
  }

  @Test func parametersByPIOAreBlocksToTheDevice() throws {
    let kit = try ATAPIKit()
    let list = [UInt8](repeating: 0, count: 8) + page(kit, 0x01)
    kit.link.guestData = list
    #expect(kit.packet([0x55, 0x10, 0, 0, 0, 0, 0, 0, 20], limit: 12).status == 0x50)
    let pio = kit.link.slot.pointee.pio
    #expect(pio.blockBytes == 8 && !pio.isInput && pio.interrupts)
    kit.link.guestData = list
    #expect(kit.isAborted([0x55, 0x10, 0, 0, 0, 0, 0, 0, 20], limit: 0))
    #expect(kit.link.guestData == list)
  }
}
