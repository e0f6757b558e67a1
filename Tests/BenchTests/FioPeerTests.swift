// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import Testing

@testable import Bench

@Suite struct FioPeerTests {
  private func peer(
    _ operation: Workload.Operation, engine: EngineKind = .ioUring, blockBytes: Int = 4096, depth: Int = 16,
    path: String = "/tmp/file"
  ) -> FioPeer {
    let workload = Workload(operation: operation, blockBytes: blockBytes, spanBytes: 64 << 20)
    return FioPeer(engine: engine, path: path, workload: workload, depth: depth, seconds: 0.5)
  }

  /// A terse line of version 3 with figures in the fields that a direction uses.
  private func line(isWrite: Bool, iops: String, user: String = "1.000000%", system: String = "9.000000%") -> String {
    var fields = [String](repeating: "0", count: 130)
    fields[0] = "3"
    fields[1] = "fio-3.33"
    let shift = isWrite ? 41 : 0
    fields[7 + shift] = iops
    fields[17 + shift] = "50.000000%=238"
    fields[18 + shift] = "99.000000%=337"
    fields[87] = user
    fields[88] = system
    return fields.joined(separator: ";")
  }

  @Test func figuresOfAReadAreTakenFromTheReadFields() throws {
    let figures = try peer(.randomRead).parse(line(isWrite: false, iops: "50000") + "\n")
    #expect(figures.iops == 50000)
    #expect(figures.medianMicroseconds == 238)
    #expect(figures.p99Microseconds == 337)
    // 1 % and 9 % of a second for 50000 requests.
    #expect(abs(figures.userMicroseconds - 0.2) < 1e-9)
    #expect(abs(figures.systemMicroseconds - 1.8) < 1e-9)
  }

  @Test(arguments: [Workload.Operation.randomWrite, .sequentialWrite, .flushedWrite, .fuaWrite])
  func figuresOfEveryWriteAreTakenFromTheWriteFields(operation: Workload.Operation) throws {
    let figures = try peer(operation).parse(line(isWrite: true, iops: "4271"))
    #expect(figures.iops == 4271)
    #expect(figures.medianMicroseconds == 238)
  }

  @Test func cpuTimeOfManyJobsIsThatOfOneTimesTheirNumber() throws {
    let figures = try peer(.randomRead, engine: .threads, depth: 16).parse(line(isWrite: false, iops: "50000"))
    #expect(abs(figures.userMicroseconds - 16 * 0.2) < 1e-9)
  }

  /// What fio 3.33 printed.
  @Test func lineOfARealRunIsRead() throws {
    let text = """
      fio: this is not the result
      3;fio-3.33;peer;0;0;130784;261045;65261;501;0;0;0.000000;0.000000;42;4232;244.209755;181.802681;50.000000%=238;\
      99.000000%=337;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;42;4233;\
      244.292169;181.802307;147248;147248;56.407133%;147248.000000;0.000000;0;0;0;0;0;0;0.000000;0.000000;0;0;0.000000;\
      0.000000;50.000000%=0;99.000000%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;0%=0;\
      0%=0;0%=0;0%=0;0;0;0.000000;0.000000;0;0;0.000000%;0.000000;0.000000;0.500000%;2.437500%;32853;0;15;100.0%;0.0%;\
      0.0%;0.0%;0.0%;0.0%;0.0%;0.00%;0.00%;0.00%;0.00%;0.01%;0.20%;65.61%;33.74%;0.04%;0.01%;0.12%;0.17%;0.10%;0.00%

      """
    let figures = try peer(.randomRead, engine: .threads, depth: 16).parse(text)
    #expect(figures.iops == 65261)
    #expect(figures.medianMicroseconds == 238)
    #expect(figures.p99Microseconds == 337)
    #expect(abs(figures.systemMicroseconds - 0.024375 * 1e6 * 16 / 65261) < 1e-9)
  }

  @Test(arguments: ["", "fio: engine libaio not loadable\n", "3;fio-3.33;peer;0;0;1;2;3\n"])
  func outputWithoutFiguresIsAnError(text: String) {
    #expect(throws: BenchError.self) { try peer(.randomRead).parse(text) }
  }

  @Test func runThatCompletedNothingIsAnError() {
    #expect(throws: BenchError.self) { try peer(.randomRead).parse(line(isWrite: false, iops: "0")) }
    // The figures are in the fields of the other direction.
    #expect(throws: BenchError.self) { try peer(.randomWrite).parse(line(isWrite: false, iops: "50000")) }
  }

  // MARK: The command line

  private func words(_ peer: FioPeer) -> [Substring] { peer.command.split(separator: " ") }

  @Test func enginesHaveTheirCounterparts() {
    #expect(words(peer(.randomRead)).contains("--ioengine=io_uring"))
    #expect(words(peer(.randomRead, engine: .linuxAIO)).contains("--ioengine=libaio"))
    let threads = words(peer(.randomRead, engine: .threads))
    for word in ["--ioengine=psync", "--thread=1", "--numjobs=16", "--group_reporting"] {
      #expect(threads.contains("\(word)"))
    }
    #expect(!threads.contains { $0.hasPrefix("--iodepth") })
  }

  @Test func durableWritesAskForWhatOursDo() {
    #expect(words(peer(.fuaWrite)).contains("--sync=dsync"))
    #expect(words(peer(.flushedWrite)).contains("--fdatasync=1"))
    let plain = words(peer(.randomWrite))
    #expect(!plain.contains { $0.hasPrefix("--sync") || $0.hasPrefix("--fdatasync") })
  }

  @Test func sequentialThreadsHaveWholeBlocksOfTheirOwn() {
    // 64 MiB in five parts, each rounded down to 128 KiB.
    let words = words(peer(.sequentialRead, engine: .threads, blockBytes: 128 << 10, depth: 5))
    let part = 102 * (128 << 10)
    #expect(words.contains("--offset_increment=\(part)"))
    #expect(words.contains("--size=\(part)"))
  }

  @Test func pathsReachFioAsTheyAre() {
    let command = peer(.randomRead, path: "/tmp/it's a:b").command
    #expect(command.contains("--filename='/tmp/it'\\''s a\\:b'"))
  }
}
