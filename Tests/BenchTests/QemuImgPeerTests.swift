// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import Testing

@testable import Bench

@Suite struct QemuImgPeerTests {
  private func command(
    _ operation: Workload.Operation, path: String = "/tmp/file", engine: EngineKind = .ioUring, isDirect: Bool = true
  ) -> String {
    let workload = Workload(operation: operation, blockBytes: 4096, spanBytes: 64 << 20)
    let target = QemuImgPeer.Target.file(path: path, engine: engine, isDirect: isDirect)
    return QemuImgPeer(target: target, workload: workload, depth: 16).command(count: 1000)
  }

  @Test func secondsAreTakenFromTheLineThatHasThem() {
    let text = """
      Sending 2000 read requests, 4096 bytes each, 16 in parallel (starting at offset 0, step size 4096)
      Run completed in 0.034 seconds.

      """
    #expect(QemuImgPeer.parse(text) == 0.034)
  }

  @Test(arguments: [
    "", "qemu-img: Could not open '/nonexist'\n", "Run completed in  seconds.\n", "Run completed in 0.034",
  ])
  func outputWithoutSecondsIsNone(text: String) {
    #expect(QemuImgPeer.parse(text) == nil)
  }

  @Test func enginesAndCachesHaveTheirCounterparts() {
    #expect(command(.sequentialRead).contains(" -t none -i io_uring "))
    #expect(command(.sequentialRead, engine: .linuxAIO).contains(" -i native "))
    #expect(command(.sequentialRead, engine: .threads, isDirect: false).contains(" -t writeback -i threads "))
  }

  @Test func onlyWritesWrite() {
    #expect(command(.sequentialWrite).contains(" -w "))
    #expect(!command(.randomRead).contains(" -w "))
  }

  @Test func strideOfARandomLoadVisitsEveryBlock() throws {
    let words = command(.randomRead).split(separator: " ")
    let option = try #require(words.firstIndex(of: "-S"))
    let step = try #require(Int(words[option + 1]))
    let blockCount = (64 << 20) / 4096
    let visited = Set((0..<blockCount).map { $0 * step / 4096 % blockCount })
    #expect(visited.count == blockCount)
    #expect(command(.sequentialRead).contains(" -S 4096 "))
  }

  @Test func pathsReachQemuAsTheyAre() {
    #expect(command(.randomRead, path: "/tmp/a,b'c").hasSuffix("file.filename=/tmp/a,,b'\\''c'"))
  }
}
