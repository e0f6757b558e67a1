// SPDX-License-Identifier: Apache-2.0
// Discard and write-zeroes on files: what is asked of the kernel, and what follows from its answers.
import Glibc
import Testing

@testable import AsyncIO
@testable import Block

@Suite struct RangeTests {
  private static let page = 4096
  private static let notTaken = [-EOPNOTSUPP, -ENOTTY, -EINVAL, -ENOSYS]

  @Test(arguments: notTaken) func discardThatTheFileDoesNotTakeSucceeds(error: Int32) throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file)
    kit.engine.answer = { _ in error }
    kit.submit(kit.range(.discard, 0..<8192))
    kit.backend.drain()
    #expect(kit.client.results == [0])
    #expect(kit.backend.statistics.discards == 1)
  }

  @Test func fileThatKnowsNoHolesIsAskedOnceAndOneThatRefusesARangeIsAskedAgain() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file)
    var errors = [-EINVAL, -EOPNOTSUPP]
    kit.engine.answer = { _ in errors.isEmpty ? 0 : errors.removeFirst() }
    for _ in 0..<4 {
      kit.submit(kit.range(.discard, 0..<8192))
      kit.backend.drain()
    }
    #expect(kit.client.results == [0, 0, 0, 0])
    #expect(kit.engine.opcodes == [.discard, .discard])
  }

  @Test func errorsOfTheDiskAreReported() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file)
    kit.engine.answer = { _ in -EIO }
    kit.submit(kit.range(.discard, 0..<8192), kit.range(.writeZeroes, 8192..<16384))
    kit.backend.drain()
    #expect(kit.client.results == [-EIO, -EIO])
    #expect(kit.engine.opcodes == [.discard, .writeZeroes])
  }

  @Test(arguments: notTaken) func zeroesAreWrittenWhereTheFileCannotZeroARange(error: Int32) throws {
    let original = [UInt8](repeating: 7, count: 4 << 20)
    let file = try TemporaryFile(original)
    let kit = try ScriptKit(file)
    kit.engine.actOnFile { $0.pointee.opcode == .writeZeroes ? error : nil }
    let range = 512..<(2 << 20) + 5 * 1024
    kit.submit(kit.range(.writeZeroes, range))
    kit.backend.drain()
    #expect(kit.client.results == [0])
    var expected = original
    expected.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
    #expect(file.bytes == expected)
    let windows = kit.engine.log.filter { $0.opcode == .write }
    #expect(windows.map(\.byteCount) == [1 << 20, 1 << 20, 5 * 1024 - 512])
    #expect(windows.map(\.iovecCount) == [16, 16, 1])
    #expect(kit.engine.log.first?.mayUnmap == false)
  }

  @Test func zeroesThatMayUnmapArePunchedElseZeroedElseWritten() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file)
    kit.engine.actOnFile { $0.pointee.opcode == .writeZeroes ? -EINVAL : nil }
    kit.submit(kit.range(.writeZeroes, 0..<8192, mayUnmap: true))
    kit.backend.drain()
    #expect(kit.client.results == [0])
    #expect(kit.engine.opcodes == [.writeZeroes, .writeZeroes, .write])
    #expect(kit.engine.log.map(\.mayUnmap) == [true, false, false])
  }

  @Test func zeroesThatMustStayMappedAreNeverPunched() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file)
    kit.engine.actOnFile { $0.pointee.opcode == .writeZeroes ? -EOPNOTSUPP : nil }
    kit.submit(kit.range(.writeZeroes, 0..<8192))
    kit.backend.drain()
    kit.submit(kit.range(.writeZeroes, 0..<8192))
    kit.backend.drain()
    #expect(kit.client.results == [0, 0])
    #expect(kit.engine.opcodes == [.writeZeroes, .write, .write])
    #expect(kit.engine.log.allSatisfy { !$0.mayUnmap })
  }

  @Test func zeroesWrittenByHandServeOneRequestAfterTheOtherAndAllOfThem() throws {
    let file = try TemporaryFile([UInt8](repeating: 7, count: 4 << 20))
    let kit = try ScriptKit(file)
    kit.engine.actOnFile { $0.pointee.opcode == .writeZeroes ? -EOPNOTSUPP : nil }
    kit.submit(
      kit.range(.writeZeroes, 0..<(1 << 20) + 4096), kit.range(.writeZeroes, (2 << 20)..<(3 << 20)),
      kit.range(.writeZeroes, (3 << 20)..<(4 << 20)))
    kit.backend.drain()
    #expect(kit.client.results == [0, 0, 0])
    #expect(
      kit.engine.log.filter { $0.opcode == .write }.map(\.offset) == [0, 1 << 20, 2 << 20, 3 << 20])
    #expect(file.bytes[..<((1 << 20) + 4096)].allSatisfy { $0 == 0 })
    #expect(file.bytes[(2 << 20)...].allSatisfy { $0 == 0 })
  }

  @Test func failedWriteOfZeroesIsReportedAndTheNextRequestGoesOn() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file)
    kit.engine.actOnFile {
      if $0.pointee.opcode == .writeZeroes { return -EOPNOTSUPP }
      return $0.pointee.offset == 0 ? -ENOSPC : nil
    }
    let first = kit.range(.writeZeroes, 0..<8192)
    let second = kit.range(.writeZeroes, 8192..<16384)
    kit.submit(first, second)
    kit.backend.drain()
    #expect(first.pointer.pointee.result == -ENOSPC)
    #expect(second.pointer.pointee.result == 0)
  }

  // MARK: Engines that do not do it

  @Test func companionIsMadeOnceAndDoesWhatTheEngineDoesNot() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file, hasCompanion: true) { $0.unsupported = [.discard, .writeZeroes] }
    #expect(kit.companions.isEmpty)
    #expect(kit.driver.supportsDiscard)
    kit.submit(kit.range(.discard, 0..<8192), kit.range(.writeZeroes, 8192..<16384))
    kit.backend.drain()
    #expect(kit.client.results == [0, 0])
    #expect(kit.companions.map(\.opcodes) == [[.discard, .writeZeroes]])
    #expect(kit.engine.log.isEmpty)
  }

  @Test func withoutACompanionDiscardSaysSoAndZeroesAreWritten() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file) { $0.unsupported = [.discard, .writeZeroes] }
    kit.engine.actOnFile()
    #expect(!kit.driver.supportsDiscard)
    kit.submit(kit.range(.discard, 0..<8192), kit.range(.writeZeroes, 8192..<16384))
    kit.backend.drain()
    #expect(kit.client.results == [-EOPNOTSUPP, 0])
    #expect(kit.engine.opcodes == [.write])
    #expect(file.bytes[8192..<16384].allSatisfy { $0 == 0 })
  }

  @Test func flushesGoToTheCompanionWhereTheEngineHasNone() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file, hasCompanion: true) { $0.unsupported = [.flush] }
    kit.submit(kit.request(.flush))
    kit.backend.drain()
    #expect(kit.client.results == [0])
    #expect(kit.engine.log.isEmpty)
    #expect(kit.companions.map(\.opcodes) == [[.flush]])
  }

  @Test func flushesThatTheEngineFindsItCannotDoAreTriedByTheCompanionOnce() throws {
    for (alignment, cache) in [(IOAlignment.none, CacheMode.writeback), (.none, .writethrough), (.page, .writethrough)]
    {
      let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
      let kit = try ScriptKit(file, cache: cache, alignment: alignment, hasCompanion: true) { $0.fuaIsNative = false }
      kit.engine.actOnFile { operation in
        guard operation.pointee.opcode == .flush else { return nil }
        kit.engine.unsupported = [.flush]
        return -EINVAL
      }
      kit.submit(
        kit.request(.flush), kit.request(.flush), kit.request(.write, offset: 512, pieces: [512]),
        kit.range(.writeZeroes, 4096..<8192))
      kit.backend.drain()
      #expect(kit.client.results == [0, 0, 0, 0])
      #expect(kit.companions.count == 1)
      // A companion that cannot either is believed.
      kit.companions.first?.answer = { _ in -EINVAL }
      kit.submit(kit.request(.flush))
      kit.backend.drain()
      #expect(kit.client.results.last == -EINVAL)
    }
  }

  // MARK: Durability

  @Test func writeThroughFlushesAfterEachOfThem() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file, cache: .writethrough)
    kit.submit(kit.range(.discard, 0..<8192))
    kit.engine.completeOne()
    #expect(kit.engine.opcodes == [.discard, .flush])
    #expect(kit.client.completed.isEmpty)
    kit.engine.completeOne()
    #expect(kit.client.results == [0])
    kit.submit(kit.range(.writeZeroes, 0..<8192))
    kit.engine.completeOne()
    #expect(kit.engine.opcodes == [.discard, .flush, .writeZeroes, .flush])
    kit.engine.completeOne(-EIO)
    #expect(kit.client.results == [0, -EIO])
  }

  // MARK: Alignment

  @Test func discardIsTrimmedToWholeBlocks() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file, alignment: .page)
    kit.engine.answer = { _ in 0 }
    kit.submit(kit.range(.discard, 512..<12800), kit.range(.discard, 512..<4608), kit.range(.discard, 0..<0))
    kit.backend.drain()
    #expect(kit.client.results == [0, 0, 0])
    #expect(kit.engine.log == [.init(opcode: .discard, offset: 4096, byteCount: 8192)])
  }

  @Test func endsOfAZeroedRangeAreReadModifiedAndWritten() throws {
    for range in [512..<12800, 0..<512, 512..<1024, 512..<4608, 4096..<12800, 512..<8192, 3584..<4608, 0..<65536] {
      let original = TemporaryFile.pattern(1 << 16)
      let file = try TemporaryFile(original)
      let kit = try ScriptKit(file, cache: .directsync, alignment: .page)
      kit.engine.actOnFile()
      kit.submit(kit.range(.writeZeroes, range))
      kit.backend.drain()
      #expect(kit.client.results == [0])
      var expected = original
      expected.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
      #expect(file.bytes == expected, "\(range)")
      for entry in kit.engine.log where entry.opcode != .flush {
        #expect(entry.offset % 4096 == 0 && entry.byteCount % 4096 == 0)
      }
      // Parts of blocks are written through; whole blocks are followed by a flush.
      #expect(kit.engine.log.allSatisfy { $0.opcode != .write || $0.forceUnitAccess })
    }
  }

  @Test func zeroesBehindAPartialWriteWaitForItAndAreNotUndone() throws {
    let original = TemporaryFile.pattern(1 << 16)
    let file = try TemporaryFile(original)
    let kit = try ScriptKit(file, alignment: .page)
    kit.engine.actOnFile()
    let data = TemporaryFile.pattern(512, seed: 9)
    kit.submit(
      kit.request(.write, offset: 512, pieces: [512], fill: data), kit.range(.writeZeroes, 1024..<8704),
      kit.request(.write, offset: 8704, pieces: [512], fill: data))
    kit.backend.drain()
    #expect(kit.client.results == [0, 0, 0])
    var expected = original
    expected.replaceSubrange(512..<1024, with: data)
    expected.replaceSubrange(1024..<8704, with: [UInt8](repeating: 0, count: 7680))
    expected.replaceSubrange(8704..<9216, with: data)
    #expect(file.bytes == expected)
  }
}
