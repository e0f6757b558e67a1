// SPDX-License-Identifier: Apache-2.0
// Every engine on a real block device.
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import AsyncIO
@testable import Block

@Suite(.enabled(if: LoopDevice.works, "loop devices cannot be made here")) struct LoopDeviceTests {
  /// Linux AIO is no engine for the page cache.
  static let cases: [(EngineKind, CacheMode)] = EngineAvailability.probeAll().filter(\.isUsable).flatMap { engine in
    [CacheMode.none, .writeback, .directsync].filter { $0.isDirect || engine.kind != .linuxAIO }.map {
      (engine.kind, $0)
    }
  }

  private static let byteCount = 1 << 20

  private func kit(_ kind: EngineKind, _ cache: CacheMode, _ device: LoopDevice) throws -> (BlockBackend, EventLoop) {
    let loop = try EventLoop(name: "test", monitor: .auto)
    let image = try ImageFile.open(path: device.path, cache: cache, readOnly: false)
    var configuration = BlockConfiguration()
    configuration.cache = cache
    let driver = FileDriver(
      image: image, engine: try kind.makeEngine(on: loop),
      companion: { loop throws(SystemError) in ThreadPoolEngine(loop: loop) })
    return (BlockBackend(driver: driver, loop: loop, configuration: configuration), loop)
  }

  @Test(arguments: cases) func everyOperationWorksOnABlockDevice(kind: EngineKind, cache: CacheMode) throws {
    let original = TemporaryFile.pattern(Self.byteCount)
    let file = try TemporaryFile(original)
    let device = try LoopDevice(over: file.path)
    let client = TestClient()
    let (backend, loop) = try kit(kind, cache, device)
    #expect(backend.byteCount == UInt64(Self.byteCount))
    func run(_ requests: TestRequest...) {
      loop.beginBatch()
      requests.forEach { backend.submit($0.pointer) }
      loop.endBatch()
      backend.drain()
    }
    let new = TemporaryFile.pattern(8192, seed: 7)
    // Aligned, and one that direct I/O cannot take as it is.
    run(TestRequest(.write, offset: 4096, pieces: [4096, 4096], fill: new, client: client))
    run(TestRequest(.write, offset: 65536 + 512, pieces: [512], fill: Array(new[..<512]), shift: 3, client: client))
    let forced = TestRequest(.write, offset: 131072, pieces: [4096], fill: Array(new[..<4096]), client: client)
    forced.pointer.pointee.forceUnitAccess = true
    run(forced)
    let zeroes = TestRequest(.writeZeroes, offset: 262144, client: client)
    zeroes.pointer.pointee.byteCount = 65536
    let unmapped = TestRequest(.writeZeroes, offset: 393216 + 512, client: client)
    unmapped.pointer.pointee.byteCount = 4096
    unmapped.pointer.pointee.mayUnmap = true
    let discard = TestRequest(.discard, offset: 524288, client: client)
    discard.pointer.pointee.byteCount = 65536
    run(zeroes, unmapped, discard)
    run(TestRequest(.flush, client: client))
    let read = TestRequest(.read, pieces: [Self.byteCount], client: client)
    run(read)
    #expect(client.results.allSatisfy { $0 == 0 })
    var expected = original
    expected.replaceSubrange(4096..<12288, with: new)
    expected.replaceSubrange(66048..<66560, with: new[..<512])
    expected.replaceSubrange(131072..<135168, with: new[..<4096])
    expected.replaceSubrange(262144..<327680, with: [UInt8](repeating: 0, count: 65536))
    expected.replaceSubrange(393728..<397824, with: [UInt8](repeating: 0, count: 4096))
    // What was discarded may read as anything.
    var got = read.bytes
    got.replaceSubrange(524288..<589824, with: expected[524288..<589824])
    #expect(got == expected)
    backend.close()
  }

  @Test func blockDeviceIsRecognised() throws {
    let file = try TemporaryFile([UInt8](repeating: 1, count: Self.byteCount))
    let device = try LoopDevice(over: file.path)
    let image = try ImageFile.open(path: device.path, cache: .none, readOnly: true)
    #expect(image.facts.isBlockDevice)
    #expect(image.facts.isKnownAsynchronous)
    #expect(image.facts.deviceFUA != nil)
    #expect(image.byteCount == UInt64(Self.byteCount))
  }
}
