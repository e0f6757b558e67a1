// SPDX-License-Identifier: Apache-2.0
// What a drive is made of: rules, snapshots, limits, names; as a user writes it, and as a machine has it.
import AHCI
import Block
import Glibc
import GuestDrivers
import HostSystem
import Machine
import Platform
import Synchronization
import Testing

@testable import Assembly

private final class TemporaryFile {
  let path = "/var/tmp/spindle-contents-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
  init(_ bytes: [UInt8]) throws { try writeWholeFile(path, bytes) }
  deinit { unlink(path) }
}

@Suite struct DriveContentsTests {
  private func parse(_ text: String) throws -> DriveConfiguration { try DriveConfiguration(parsing: text, index: 0) }

  @Test func nothingIsOnByDefault() throws {
    let drive = try parse("file=a")
    #expect(!drive.isSnapshot && drive.limits.isEmpty && drive.debugRules.isEmpty && drive.locksImage)
    #expect(!drive.ignoresDiscard && drive.zeroDetection == .off && !drive.isReadOnlyWhereNecessary)
    #expect(drive.geometry == nil && drive.pciAddress == nil && drive.nodeName == nil && drive.deviceID == nil)
  }

  @Test func everyKeyIsTaken() throws {
    let drive = try parse(
      "file=a,snapshot=on,auto-read-only=on,file.locking=off,discard=ignore,detect-zeroes=on,copy-on-read=off,"
        + "node-name=n,device-id=d,addr=4.0,lcyls=1,lheads=1,lsecs=1,bios-chs-trans=lba,"
        + "throttling.bps-read=100,throttling.bps-read-max=200,throttling.iops-total=7")
    #expect(drive.isSnapshot && drive.isReadOnlyWhereNecessary && !drive.locksImage && drive.ignoresDiscard)
    #expect(drive.zeroDetection == .on && drive.nodeName == "n" && drive.deviceID == "d")
    #expect(drive.pciAddress == PCIAddress(device: 4, function: 0))
    #expect(drive.limits.bytes.read == ThrottleLimits.Limit(100, burst: 200))
    #expect(drive.limits.requests.total == ThrottleLimits.Limit(7))
    let disk = try parse("file=a,if=ahci,cyls=1024,heads=16,secs=63,ver=V 2,snapshot=on,readonly=on")
    #expect(disk.geometry == ATADriveGeometry(cylinders: 1024, heads: 16, sectors: 63))
    #expect(disk.firmwareVersion == "V 2" && !disk.isSnapshot)
  }

  @Test(arguments: [
    ("cache.direct=on", CacheMode.none), ("cache.direct=on,cache.writeback=off", .directsync),
    ("cache.writeback=off", .writethrough), ("cache.no-flush=on", .unsafe), ("cache=none,cache.direct=off", .writeback),
    ("cache=writethrough", .writethrough), ("cache=unsafe,cache.no-flush=off", .writeback),
  ])
  func theCacheModeHasParts(text: String, mode: CacheMode) throws { #expect(try parse("file=a,\(text)").cache == mode) }

  @Test(arguments: ["null-co://", "null-aio://"]) func nullDisksHaveQEMUsNames(name: String) throws {
    let drive = try parse("file=\(name),file.read-zeroes=on")
    #expect(drive.source == .null(byteCount: 1 << 30) && drive.readsZeroes)
    #expect(
      try parse("driver=null-co,size=2T,read-zeroes=on,latency=5").source == .null(byteCount: 2 << 40, latencyNs: 5))
    #expect(try !parse("file=\(name)").readsZeroes)
  }

  @Test func debugRulesComeFromAFileOrFromOptions() throws {
    let rules = try TemporaryFile(Array("[inject-error]\nevent = \"write_aio\"\nonce = \"on\"\n".utf8))
    let drive = try parse("file=blkdebug:\(rules.path):/images/a:b")
    #expect(drive.source == .file(path: "/images/a:b") && drive.debugRules.count == 1)
    #expect(try parse("file=blkdebug::a").debugRules.isEmpty)
    let options = try parse("driver=blkdebug,file=a,inject-error.0.event=read_aio,inject-error.0.errno=28")
    #expect(options.source == .file(path: "a") && options.debugRules.count == 1)
    #expect(
      try parse("driver=blkdebug,file=blkdebug:\(rules.path):a,set-state.0.event=none,set-state.0.new_state=2")
        .debugRules.count == 2)
  }

  @Test func aMistakeInTheRulesIsNamedWithItsFileAndLine() throws {
    let rules = try TemporaryFile(Array("[inject-error]\nevent = \"write\"\n".utf8))
    let error = try #require(throws: UsageError.self) { try parse("file=blkdebug:\(rules.path):a") }
    #expect(error.description.hasPrefix("--drive: file=blkdebug: \(rules.path), line 2: event 'write' is unknown"))
    #expect(!error.description.contains("\n"))
  }

  @Test(arguments: [
    ("file=blkdebug:a", "file=blkdebug:a names no image"), ("file=blkdebug::", "no file is named"),
    ("file=blkdebug:/nonexistent:a", "/nonexistent: No such file"),
    ("file=a,inject-error.0.event=none", "inject-error.0.event= goes with driver=blkdebug only"),
    ("driver=blkdebug,file=a,inject-error.0.event=x", "inject-error.0: event 'x' is unknown"),
    ("file=a,read-zeroes=on", "read-zeroes= goes with driver=null only"),
    ("file=null-co://,driver=memory", "driver=memory takes no file"),
    ("file=a,copy-on-read=on", "images here have no backing file"),
    ("file=a,detect-zeroes=unmap,discard=ignore", "needs discard=unmap"),
    ("file=a,cache.direct=on,cache.no-flush=on", "leave one of them out"),
    ("file=a,throttling.bps-total=1,throttling.bps-write=1", "throttling.bps-total goes without"),
    ("file=a,throttling.iops-read-max=5", "throttling.iops-read-max=5 needs a throttling.iops-read"),
    ("file=a,throttling.iops-read=6,throttling.iops-read-max=5", "that is not larger"),
    ("file=a,throttling.bps-write=fast", "throttling.bps-write=fast is not a whole number"),
    ("file=a,if=ahci,cyls=5", "cyls=, heads= and secs= go together"),
    ("file=a,if=ahci,cyls=5,heads=17,secs=1", "heads=17 is not a whole number from 1 to 16"),
    ("file=a,if=ahci,addr=4", "addr=4 goes with if=virtio only"), ("file=a,addr=20.0", "addr=20.0 is not SLOT"),
    ("file=a,addr=4.8", "hexadecimal"), ("file=a,addr=", "addr= is not SLOT"), ("file=a,ver=123456789", "at most 8"),
    ("file=a,file.locking=maybe", "choose one of auto, on, off"), ("file=a,throttle=1", "unknown key 'throttle'"),
  ])
  func mistakeIsNamed(text: String, part: String) throws {
    let error = try #require(throws: UsageError.self) { try parse(text) }
    #expect(error.description.contains(part), "\(error)")
    #expect(error.description.hasPrefix("--drive") && !error.description.contains("\n"))
  }

  // MARK: Machines

  private func assemble(_ drives: String...) throws -> AssembledMachine {
    var configuration = MachineConfiguration()
    configuration.memoryBytes = 64 << 20
    configuration.drives = try drives.enumerated().map { try DriveConfiguration(parsing: $1, index: $0) }
    return try AssembledMachine(configuration, serial: MemorySink())
  }

  @Test func disksAreWhereTheyAreSaidToBeAndTheOthersBeside() throws {
    let assembled = try assemble(
      "driver=null-co,device-id=drv0,addr=3", "driver=null-co,id=b", "driver=null-co,addr=0x06.1")
    #expect(assembled.disks.map(\.address.description) == ["03.0", "04.0", "06.1"])
    #expect(assembled.disks.map(\.name) == ["drv0", "b", "drive2"])
    #expect(throws: UsageError.self) { try assemble("driver=null,addr=5", "driver=null,addr=5.0") }
    #expect(throws: UsageError.self) { try assemble("driver=null,addr=1f.0") }
    #expect(throws: UsageError.self) { try assemble("driver=null,addr=0") }
  }

  @Test func layersAreThereOnlyWhereTheyAreAskedFor() throws {
    #expect(try assemble("driver=null").backends[0].driver is NullDriver)
    let top = try assemble("driver=null,throttling.bps-total=5,detect-zeroes=on").backends[0].driver
    #expect(((top as? ThrottleDriver)?.lower as? ZeroDetector)?.lower is NullDriver)
  }

  @Test func anImageThatMayNotBeWrittenIsReadOnlyWhereThatIsAllowed() throws {
    // Root may write every file; a file of a kind that is busy being executed, nobody.
    let path = "/proc/self/exe"
    #expect(throws: ImageError.self) { try assemble("file=\(path)") }
    #expect(try assemble("file=\(path),auto-read-only=on").backends[0].isReadOnly)
    #expect(try !assemble("file=\(path),snapshot=on").backends[0].isReadOnly)
  }

  @Test func anImageMayBeUsedWithoutLocks() throws {
    let image = try TemporaryFile([UInt8](repeating: 1, count: 65536))
    let first = try assemble("file=\(image.path)")
    #expect(throws: ImageError.self) { try assemble("file=\(image.path)") }
    #expect(try assemble("file=\(image.path),file.locking=off").backends[0].byteCount == 65536)
    withExtendedLifetime(first) {}
  }

  /// Runs the test program on a disk, and gives its failures.
  private func run(_ drive: String) throws -> (failures: Int, events: [MachineEvent]) {
    let assembled = try assemble(drive)
    let machine = assembled.machine
    let failures = Mutex(-1)
    _ = assembled.useHosted(processorCount: 1) { bus in
      let count = TestProgram(bus: bus, commandLine: Array("disk=plain quiet".utf8)).run()
      failures.withLock { $0 = count }
      machine.requestShutdown(.hostRequest)
    }
    // Of the main loop's thread, which is this one.
    nonisolated(unsafe) var events: [MachineEvent] = []
    machine.events.observe { event in
      events.append(event)
      if event == .stopped { machine.mainLoop.execute { machine.resume() } }
    }
    #expect(try assembled.run() == .hostRequest)
    return (failures.withLock { $0 }, events)
  }

  @Test(arguments: ["if=virtio", "if=ahci"]) func aSnapshotTakesTheGuestsWritesAndLeavesTheImage(interface: String)
    throws
  {
    let bytes = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 / 512 &* 13 &+ $0) }
    let image = try TemporaryFile(bytes)
    #expect(try run("file=\(image.path),\(interface),snapshot=on").failures == 0)
    #expect(try readWholeFile(image.path) == bytes)
  }

  @Test(arguments: ["if=virtio", "if=ahci"]) func rulesThatFailAReadOnceStopTheMachineOnce(interface: String) throws {
    let image = try TemporaryFile([UInt8](repeating: 3, count: 1 << 20))
    let rules = try TemporaryFile(
      Array(
        """
        [inject-error]
        event = "read_aio"
        errno = "5"
        state = "1"
        immediately = "off"
        once = "on"
        [set-state]
        event = "read_aio"
        state = "1"
        new_state = "2"
        """.utf8))
    let outcome = try run("file=blkdebug:\(rules.path):\(image.path),\(interface),rerror=stop")
    #expect(outcome.failures == 0)
    #expect(outcome.events.filter { $0 == .stopped }.count == 1)
    #expect(
      outcome.events.contains(.blockError(drive: "drive0", isRead: true, action: .stop, code: EIO)))
  }

  @Test(
    arguments: ["if=virtio", "if=ahci"],
    [
      "driver=null-co,size=8T,read-zeroes=on,latency=1000", "driver=memory,size=1M,throttling.iops-total=2000",
      "driver=memory,size=1M,detect-zeroes=unmap", "driver=memory,size=1M,discard=ignore",
      "driver=memory,size=1M,fault=any:delay=10us",
    ])
  func theTestProgramPassesOn(interface: String, drive: String) throws {
    #expect(try run("\(drive),\(interface)").failures == 0)
  }
}
