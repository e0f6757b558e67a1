// SPDX-License-Identifier: Apache-2.0
import EventLoop

@testable import AsyncIO

/// What every test of the engine against a scripted kernel has.
class LinuxAIOTestCase {
  let loop: EventLoop
  let kernel = ScriptedAIO()
  let engine: LinuxAIOEngine
  let sink = RecordingSink()

  init() throws {
    loop = try makeWatchedLoop()
    engine = LinuxAIOEngine(port: kernel, loop: loop)
    engine.submitBatchMax = LinuxAIOEngine.eventsMax
  }

  func settle() { while loop.runOnce(mayBlock: false) {} }

  func reads(_ count: Int) -> [TestOperation] {
    (0..<count).map { TestOperation(.read, offset: UInt64($0) * 512, pieces: [512], sink: sink) }
  }

  func submitInOneBatch(_ operations: [TestOperation]) {
    loop.beginBatch()
    operations.forEach { engine.submit($0.pointer) }
    loop.endBatch()
  }
}

/// Work that notes that its turn came.
final class OtherWork: BottomHalf, @unchecked Sendable {
  private(set) var hasRun = false
  override func run() { hasRun = true }
}
