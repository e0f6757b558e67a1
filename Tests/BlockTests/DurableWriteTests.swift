// SPDX-License-Identifier: Apache-2.0
// Writes that are to be durable, on engines that have no such writes.
import Glibc
import Testing

@testable import AsyncIO
@testable import Block

@Suite struct DurableWriteTests {
  private func kit(alignment: IOAlignment? = nil, isNative: Bool = false) throws -> ScriptKit {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    return try ScriptKit(file, cache: .writethrough, alignment: alignment) { $0.fuaIsNative = isNative }
  }

  @Test func writeIsFollowedByAFlushBeforeItCompletes() throws {
    let kit = try kit()
    kit.submit(kit.request(.write, pieces: [512]))
    kit.engine.completeOne()
    #expect(kit.client.completed.isEmpty)
    #expect(kit.engine.opcodes == [.write, .flush])
    #expect(!kit.engine.log[0].forceUnitAccess)
    kit.engine.completeOne()
    #expect(kit.client.results == [0])
    #expect(kit.driver.directInFlight == 0)
  }

  @Test func fileThatRefusesDurableWritesGetsAFlushWhateverTheEngineCan() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let kit = try ScriptKit(file, cache: .writethrough, hasDurableWrites: false)
    kit.submit(kit.request(.write, pieces: [512]))
    kit.engine.completeOne()
    #expect(kit.client.completed.isEmpty)
    #expect(kit.engine.opcodes == [.write, .flush])
    #expect(!kit.engine.log[0].forceUnitAccess)
    kit.engine.completeOne()
    #expect(kit.client.results == [0])
  }

  @Test func failedWriteIsNotFlushedAndAFailedFlushFailsTheWrite() throws {
    let kit = try kit()
    kit.submit(kit.request(.write, pieces: [512]))
    kit.engine.completeOne(-EIO)
    #expect(kit.client.results == [-EIO])
    kit.submit(kit.request(.write, pieces: [512]))
    kit.engine.completeOne()
    kit.engine.completeOne(-ENOSPC)
    #expect(kit.client.results == [-EIO, -ENOSPC])
    #expect(kit.engine.opcodes == [.write, .write, .flush])
  }

  @Test func readsAndOrdinaryWritesAreNotFlushed() throws {
    let kit = try kit()
    kit.backend.writeCacheEnabled = true
    kit.submit(kit.request(.write, pieces: [512]), kit.request(.read, offset: 8192, pieces: [512]))
    kit.engine.completeOne()
    kit.engine.completeOne()
    #expect(kit.client.results == [0, 0])
    #expect(kit.engine.opcodes == [.write, .read])
  }

  @Test func writeThroughABufferIsFlushedOnceAtItsEnd() throws {
    let kit = try kit(alignment: .page)
    kit.engine.actOnFile()
    kit.submit(kit.request(.write, offset: 512, pieces: [512]))
    kit.backend.drain()
    #expect(kit.client.results == [0])
    #expect(kit.engine.opcodes == [.read, .write, .flush])
    #expect(!kit.engine.log[1].forceUnitAccess)
  }

  @Test func nativeEngineGetsTheFlagAndNoFlush() throws {
    let kit = try kit(isNative: true)
    kit.submit(kit.request(.write, pieces: [512]))
    kit.engine.completeOne()
    #expect(kit.client.results == [0])
    #expect(kit.engine.log.map(\.forceUnitAccess) == [true])
  }
}
