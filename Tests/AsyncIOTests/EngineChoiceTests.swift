// SPDX-License-Identifier: Apache-2.0
// The choice made for the user, over every kind of host and file.
import CLinux
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import AsyncIO

@Suite struct EngineChoiceTests {
  private func host(ioUring: String? = nil, linuxAIO: String? = nil) -> [EngineAvailability] {
    [
      EngineAvailability(kind: .ioUring, obstacle: ioUring), EngineAvailability(kind: .linuxAIO, obstacle: linuxAIO),
      EngineAvailability(kind: .threads),
    ]
  }

  private func facts(_ fileSystem: String, asynchronous: Bool) -> FileFacts {
    var facts = FileFacts()
    facts.fileSystem = fileSystem
    facts.isKnownAsynchronous = asynchronous
    return facts
  }

  @Test(arguments: [true, false], [true, false])
  func ioUringIsTakenForEveryFileWhereItIsPermitted(isDirect: Bool, asynchronous: Bool) {
    let choice = EngineChoice.auto(
      facts: facts("nfs", asynchronous: asynchronous), isDirect: isDirect, engines: host())
    #expect(choice.kind == .ioUring)
  }

  @Test func linuxAIOIsTakenOnlyForDirectIOThatIsKnownToBeAsynchronous() {
    let engines = host(ioUring: "forbidden")
    #expect(
      EngineChoice.auto(facts: facts("ext4", asynchronous: true), isDirect: true, engines: engines).kind == .linuxAIO)
    #expect(
      EngineChoice.auto(facts: facts("ext4", asynchronous: true), isDirect: false, engines: engines).kind == .threads)
    #expect(
      EngineChoice.auto(facts: facts("fuse", asynchronous: false), isDirect: true, engines: engines).kind == .threads)
  }

  @Test func threadsAreAlwaysThere() {
    let engines = host(ioUring: "forbidden", linuxAIO: "none left")
    let choice = EngineChoice.auto(facts: facts("ext4", asynchronous: true), isDirect: true, engines: engines)
    #expect(choice.kind == .threads)
    #expect(choice.reason.contains("forbidden") && choice.reason.contains("none left"))
    #expect(EngineAvailability.probe(.threads).isUsable)
  }

  @Test func explicitChoiceIsRefusedOnlyWhereItCannotWork() {
    #expect(EngineChoice.refusal(of: .ioUring, isDirect: false, engines: host()) == nil)
    #expect(EngineChoice.refusal(of: .ioUring, isDirect: false, engines: host(ioUring: "forbidden")) == "forbidden")
    #expect(EngineChoice.refusal(of: .linuxAIO, isDirect: true, engines: host()) == nil)
    #expect(EngineChoice.refusal(of: .linuxAIO, isDirect: false, engines: host())?.contains("O_DIRECT") == true)
    #expect(EngineChoice.refusal(of: .threads, isDirect: false, engines: host()) == nil)
  }

  @Test func namesAreQEMUsToo() {
    #expect(EngineKind(name: "native") == .linuxAIO)
    #expect(EngineKind(name: "linux-aio") == .linuxAIO)
    #expect(EngineKind(name: "io_uring") == .ioUring)
    #expect(EngineKind(name: "warp") == nil)
  }

  @Test(arguments: [(EPERM, 2 as Int?), (EPERM, 1), (EPERM, 0), (EPERM, nil), (ENOSYS, nil), (ENOMEM, 0), (EMFILE, 0)])
  func obstacleToIoUringIsNamedInOneLine(code: Int32, setting: Int?) {
    let line = EngineAvailability.ringObstacle(code, setting: setting)
    #expect(!line.contains("\n") && !line.isEmpty)
    #expect(line.contains("io_uring_disabled") == (code == EPERM && (setting ?? 0) > 0))
  }

  @Test func probedEnginesCanBeMade() throws {
    let loop = try EventLoop(name: "test")
    for engine in EngineAvailability.probeAll() where engine.isUsable {
      let made = try engine.kind.makeEngine(on: loop)
      #expect(made.name == engine.kind.rawValue)
      made.close()
    }
  }

  // MARK: Facts

  @Test func factsOfARealFileAreFound() throws {
    let path = "/var/tmp/spindle-facts-\(getpid())"
    try writeWholeFile(path, [UInt8](repeating: 1, count: 8192))
    defer { unlink(path) }
    let file = try OwnedDescriptor.open(path, flags: O_RDWR)
    let facts = FileFacts(descriptor: file.number)
    #expect(!facts.isBlockDevice)
    #expect(!facts.fileSystem.isEmpty)
    #expect(facts.hasDurableWrites)
    // Nothing was written.
    #expect(try readWholeFile(path) == [UInt8](repeating: 1, count: 8192))
  }

  @Test func virtualFileIsNotTakenForADisk() throws {
    let file = try OwnedDescriptor.open("/proc/self/status", flags: O_RDONLY)
    let facts = FileFacts(descriptor: file.number)
    #expect(facts.fileSystem == "proc")
    #expect(!facts.isKnownAsynchronous)
  }
}
