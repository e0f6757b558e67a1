// SPDX-License-Identifier: Apache-2.0
import Glibc
import Testing

@testable import Bench

@Suite struct BenchFileTests {
  private struct Stop: Error {}

  private func byteCount(_ path: String) -> Int? {
    var facts = stat()
    return stat(path, &facts) == 0 ? facts.st_size : nil
  }

  @Test func temporaryFileIsWholeAndHasNoName() throws {
    let path = try BenchFile.withPath(nil, byteCount: 2 << 20) { path in
      #expect(byteCount(path) == 2 << 20)
      var facts = stat()
      #expect(stat(path, &facts) == 0 && facts.st_nlink == 0)
      return path
    }
    #expect(path.hasPrefix("/proc/\(getpid())/fd/"))
  }

  @Test func errorOfTheMeasurementComesThrough() {
    #expect(throws: Stop.self) { try BenchFile.withPath(nil, byteCount: 1 << 20) { _ in throw Stop() } }
  }

  @Test func namedFileIsTakenAsItIs() throws {
    let path = try BenchFile.withPath("/nowhere/disk.img", byteCount: 1 << 20) { $0 }
    #expect(path == "/nowhere/disk.img")
  }
}
