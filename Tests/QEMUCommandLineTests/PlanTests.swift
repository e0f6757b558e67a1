// SPDX-License-Identifier: Apache-2.0
// What command lines of test programs plan.
import Assembly
import Block
import Glibc
import HostSystem
import Monitor
import Testing

@testable import QEMUCommandLine

/// The plan of a command line whose words have no blanks.
func plan(_ line: String) throws -> QEMUPlan { try QEMUPlan(line.split(separator: " ").map(String.init)) }

/// What QEMU's test library always writes.
private let usual =
  "-qtest unix:/run/q -qtest-log /dev/null -chardev socket,path=/run/m,id=char0 -mon chardev=char0,mode=control "
  + "-display none -audio none -accel qtest"

/// The only drive of a plan.
private func drive(_ line: String) throws -> DriveConfiguration {
  let drives = try plan(line).drives
  try #require(drives.count == 1)
  return drives[0]
}

@Suite struct MachinePlanTests {
  @Test func usualOptionsAreUnderstood() throws {
    let plan = try plan(usual)
    #expect(plan.qtest == .unix(path: "/run/q", listens: false, waits: true))
    #expect(plan.qtestLog == "/dev/null")
    #expect(plan.monitors == [.unix(path: "/run/m", listens: false, waits: true)])
    #expect(plan.accelerator == .qtest)
    #expect(plan.memoryBytes == 128 << 20)
    #expect(plan.serial == .null)
    #expect(plan.drives.isEmpty)
  }

  @Test func libraryOfTheNewestAgeIsUnderstood() throws {
    #expect(try plan(usual + " -run-with exit-with-parent=on").endsWithParent)
    #expect(try !plan(usual).endsWithParent)
    #expect(try !plan(usual + " -run-with async-teardown=on,exit-with-parent=off").endsWithParent)
    #expect(throws: UsageError.self) { try plan("-run-with chroot=/tmp") }
    #expect(throws: UsageError.self) { try plan("-run-with warp=9") }
  }

  @Test func chardevMayComeAfterTheMonitorThatUsesIt() throws {
    let plan = try plan("-mon chardev=c,mode=control -chardev socket,id=c,path=/run/m -accel qtest")
    #expect(plan.monitors == [.unix(path: "/run/m", listens: false, waits: true)])
  }

  @Test(arguments: [
    ("-machine none", QEMUPlan.Board.none), ("-M q35", .q35), ("-M pc", .pc), ("-machine pc-q35-7.2", .q35),
    ("-M pc-i440fx-10.0", .pc), ("-machine q35,accel=qtest", .q35), ("-machine type=pc,usb=off", .pc), ("", .q35),
    ("-M pc -M q35", .q35),
  ])
  func boardsHaveTheirNames(_ row: (line: String, board: QEMUPlan.Board)) throws {
    #expect(try plan(row.line).board == row.board)
  }

  @Test(arguments: [
    ("-accel qtest", QEMUPlan.Accelerator.qtest), ("-accel kvm", .kvm), ("-enable-kvm", .kvm), ("", .kvm),
    ("-qtest stdio", .qtest), ("-accel tcg -qtest stdio", .qtest), ("-accel tcg -accel kvm", .kvm),
    ("-M q35,accel=tcg:kvm", .kvm), ("-accel qtest,thread=single", .qtest),
  ])
  func firstAcceleratorThatIsThereIsTaken(_ row: (line: String, accelerator: QEMUPlan.Accelerator)) throws {
    #expect(try plan(row.line).accelerator == row.accelerator)
  }

  @Test(arguments: [
    ("-m 384", UInt64(384) << 20), ("-m 1G", 1 << 30), ("-m size=512M", 512 << 20),
    ("-m 128,slots=2,maxmem=1G", 128 << 20),
  ])
  func memoryIsInMebibytesWithoutAUnit(_ row: (line: String, bytes: UInt64)) throws {
    #expect(try plan(row.line).memoryBytes == row.bytes)
  }

  @Test func whatChangesNothingIsTaken() throws {
    let plan = try plan(
      "-nodefaults -no-user-config -vga none -net none -nic none -parallel none -trace enable=x -D /dev/null -d unimp "
        + "-cpu max -boot c -msg timestamp=on -monitor none -only-migratable -no-acpi -sandbox on")
    #expect(plan.drives.isEmpty && plan.monitors.isEmpty)
  }

  @Test func audioTellsTheAgeOfTheTestLibrary() throws {
    #expect(try plan("-display none").dialect == .v7)
    #expect(try plan("-display none -audio none").dialect == .v10)
    #expect(try QEMUPlan.dialect(named: "7.2", variable: "V") == .v7)
    #expect(try QEMUPlan.dialect(named: "10.0", variable: "V") == .v10)
    #expect(throws: UsageError("V=9: unknown; choose 7.2 or 10.0")) {
      try QEMUPlan.dialect(named: "9", variable: "V")
    }
  }

  @Test func newestTestLibrarysOptionsAreUnderstood() throws {
    let plan = try plan(
      "-qtest unix:/run/q -qtest-log /dev/null -chardev socket,path=/run/m,id=char0 "
        + "-object monitor-qmp,id=qmp0,chardev=char0 -display none -audio none -run-with exit-with-parent=on -accel qtest"
    )
    #expect(plan.monitors == [.unix(path: "/run/m", listens: false, waits: true)])
    #expect(plan.endsWithParent && plan.dialect == .v10)
    #expect(try !QEMUPlan(["-run-with", "async-teardown=on"]).endsWithParent)
  }

  @Test func controllerIsACardOnTheOlderBoardOnly() throws {
    #expect(try plan("-M pc -device ich9-ahci,addr=1f.2,id=ahci0").removableController == "ahci0")
    #expect(try plan("-M pc").removableController == nil)
    #expect(try plan("-M q35 -device ich9-ahci,id=ahci0").removableController == nil)
  }

  @Test func switchesAreTaken() throws {
    let plan = try plan(
      "-S -no-reboot -name guest,process=x -pidfile /run/p -smp 4,sockets=1 -serial file:/run/s "
        + "-rtc base=2026-02-28T12:00:00,clock=vm -device isa-debug-exit,iobase=0xf4,iosize=4")
    #expect(plan.startsPaused && plan.endsAtReset)
    #expect(plan.name == "guest" && plan.pidFile == "/run/p" && plan.processorCount == 4)
    #expect(plan.serial == .file(path: "/run/s") && plan.clockBase == "2026-02-28T12:00:00")
    #expect(plan.debugExitPort == 0xf4)
  }

  @Test func whatHappensAtTheGuestsEndIsTheUsersChoice() throws {
    let plain = try plan("-M q35")
    #expect(!plain.endsAtReset && !plain.staysAtShutdown)
    #expect(try plan("-no-shutdown").staysAtShutdown)
    let both = try plan("-action reboot=shutdown,shutdown=pause,panic=pause,watchdog=none")
    #expect(both.endsAtReset && both.staysAtShutdown)
    // The last one counts.
    let last = try plan("-no-reboot -no-shutdown -action reboot=reset -action shutdown=poweroff")
    #expect(!last.endsAtReset && !last.staysAtShutdown)
  }

  @Test func characterDevicesAreNamed() throws {
    let all = try plan(
      "-chardev socket,id=c,path=/run/c,server=on,wait=off -mon chardev=c,mode=control -chardev null,id=n "
        + "-qtest unix:/run/q -qmp tcp:127.0.0.1:4444,server=on -serial file:/run/s")
    #expect(
      all.characterDevices == [
        CharacterDevice(label: "c", filename: "unix:/run/c,server=on", isInUse: true),
        CharacterDevice(label: "n", filename: "null", isInUse: false),
        CharacterDevice(label: "qtest", filename: "unix:/run/q", isInUse: true),
        CharacterDevice(label: "compat_monitor0", filename: "tcp:127.0.0.1:4444,server=on", isInUse: true),
        CharacterDevice(label: "serial0", filename: "file", isInUse: true),
      ])
    #expect(try plan("-serial chardev:s -chardev stdio,id=s").characterDevices.map(\.label) == ["s"])
    #expect(try plan("-serial none").characterDevices.isEmpty)
    #expect(try plan("-nographic").serial == .stdio)
    #expect(try plan("-nographic -serial none").serial == .null)
    // The terminal is the client's.
    #expect(try plan("-nographic -qtest stdio").serial == .null)
  }

  @Test func firmwareFilesHaveTextOrAPath() throws {
    let plan = try plan("-fw_cfg name=opt/a,string=x,,y -fw_cfg opt/b,file=/etc/b")
    #expect(
      plan.firmwareFiles == [
        .init(name: "opt/a", source: .text("x,y")), .init(name: "opt/b", source: .file(path: "/etc/b")),
      ])
  }

  @Test(arguments: ["--help", "-h", "-version", "-accel help", "-device help", "-machine help", "-device ?"])
  func questionsAreAnsweredInsteadOfAMachine(_ line: String) throws {
    let question = try #require(try plan(line).question)
    #expect(!QEMUAnswers.text(of: question).isEmpty)
  }

  @Test func acceleratorsAreListedOnePerLine() {
    #expect(QEMUAnswers.text(of: .list("accel")).split(separator: "\n").contains("qtest"))
  }
}

@Suite struct DrivePlanTests {
  @Test func everyKeyOfTheTestsDrivesIsTaken() throws {
    let drive = try drive(
      "-drive file=/d.img,format=raw,if=none,id=drive0,cache=writeback,rerror=stop,werror=stop,"
        + "throttling.bps-write=6144,auto-read-only=off -device ide-hd,drive=drive0")
    #expect(drive.source == .file(path: "/d.img"))
    #expect(drive.cache == .writeback)
    #expect(drive.readErrorPolicy == .stop && drive.writeErrorPolicy == .stop)
    #expect(drive.limits.bytes.write.average == 6144)
    #expect(!drive.isReadOnlyWhereNecessary && !drive.isReadOnly)
    #expect(drive.interface == .ahci && drive.port == 5)
    #expect(drive.id == "drive0" && drive.deviceID == nil)
  }

  @Test func readOnlyAndNullDrivesAreTaken() throws {
    #expect(try drive("-drive file=/d.img,if=none,id=d,readonly=on -device virtio-blk-pci,drive=d").isReadOnly)
    let null = try drive(
      "-drive if=none,id=d,file=null-co://,file.read-zeroes=on,format=raw -device virtio-blk-pci,drive=d")
    #expect(null.source == .null(byteCount: 1 << 30, latencyNs: 0))
    #expect(null.readsZeroes)
    #expect(
      try drive("-drive if=none,id=d,driver=null-co,size=4096 -device ide-hd,drive=d").source
        == .null(byteCount: 4096, latencyNs: 0))
    #expect(
      try drive("-blockdev driver=null-co,node-name=n,size=4096,latency-ns=500 -device ide-hd,drive=n").source
        == .null(byteCount: 4096, latencyNs: 500))
    #expect(try !plan("-drive if=none,id=d,file=/x -snapshot -device ide-hd,drive=d").drives[0].isReadOnly)
    #expect(try plan("-drive if=none,id=d,file=/x -snapshot -device ide-hd,drive=d").drives[0].isSnapshot)
  }

  @Test func debugRulesAreReadFromTheirFile() throws {
    let path = "/var/tmp/spindle-plan-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    try writeWholeFile(path, Array("[inject-error]\nevent = \"write_aio\"\nonce = \"on\"\n".utf8))
    defer { unlink(path) }
    let ruled = try drive("-drive file=blkdebug:\(path):/d.img,if=none,id=d,format=raw -device ide-hd,drive=d")
    #expect(ruled.debugRules.count == 1)
    #expect(ruled.source == .file(path: "/d.img"))
    let plain = try drive("-drive file=blkdebug::/d.img,if=none,id=d -device ide-hd,drive=d")
    #expect(plain.debugRules.isEmpty && plain.isDebugged && plain.source == .file(path: "/d.img"))
    #expect(throws: UsageError.self) { try plan("-drive file=blkdebug:/nonexistent:/d.img,if=none,id=d") }
  }

  @Test func unusedDrivesAreKeptForTheMonitor() throws {
    let plan = try plan(
      "-drive if=none,id=drive0,file=/a -drive if=none,id=drive1,file=null-co:// -device virtio-blk-pci,drive=drive0")
    #expect(plan.drives.map(\.id) == ["drive0"])
    #expect(plan.spares.map(\.id) == ["drive1"])
  }

  @Test func oldDrivesTakeThePortsFromZeroUp() throws {
    let three = try plan("-drive file=/a,if=ide -drive file=/b -drive file=/c,if=ide,media=cdrom")
    #expect(three.drives.map(\.port) == [0, 1, 2])
    #expect(three.drives.map(\.media) == [.disk, .disk, .cdrom])
    let placed = try plan("-drive file=/a,if=ide,index=3 -drive file=/b,if=ide,bus=4 -hda /c -cdrom /d")
    #expect(Set(placed.drives.map(\.port)).count == 4)
    #expect(try plan("-drive file=/a,if=ide,index=3").drives.map(\.port) == [3])
    #expect(try plan("/a").drives.map(\.port) == [0])
    #expect(try plan("-hdb /b").drives.map(\.port) == [1])
  }

  @Test func devicesWithoutABusTakeThePortsFromFiveDown() throws {
    let line = (0..<3).map { "-drive if=none,id=d\($0),file=/\($0) -device ide-hd,drive=d\($0)" }.joined(separator: " ")
    #expect(try plan(line).drives.map(\.port) == [5, 4, 3])
    let mixed = try plan("-drive file=/a,if=ide -drive if=none,id=d,file=/b -device ide-cd,id=cd0,drive=d")
    #expect(mixed.drives.map(\.port) == [0, 5])
    #expect(mixed.drives[1].deviceID == "cd0" && mixed.drives[1].media == .cdrom)
  }

  @Test func whoNamesAPortHasItWhereverItStands() throws {
    let late = try plan(
      "-drive if=none,id=a,file=/a -drive if=none,id=b,file=/b -device ide-hd,drive=a -device ide-hd,drive=b,bus=ide.5")
    #expect(late.drives.map(\.port) == [4, 5])
    let controller = try plan(
      "-drive file=/a -drive if=none,id=b,file=/b -device ide-hd,drive=b,bus=ahci0.0,unit=0 -device ahci,id=ahci0")
    #expect(controller.drives.map(\.port) == [1, 0])
    #expect(try plan("-drive file=/a -drive file=/b,index=0").drives.map(\.port) == [1, 0])
  }

  @Test func drivesWithoutANameAreCalledByTheirPlace() throws {
    let three = try plan("-drive file=/a -drive file=/b,media=cdrom,index=2 -drive file=/c,if=virtio")
    #expect(three.drives.map(\.id) == ["ide0-hd0", "ide2-cd0", "virtio0"])
    #expect(try plan("-M pc -cdrom /c -hdb /b").drives.map(\.id).sorted() == ["ide0-hd1", "ide1-cd0"])
    #expect(try plan("-drive if=none,file=/a -drive if=none,file=/b").spares.map(\.id) == ["none0", "none1"])
    // A name that comes later is its user's all the same.
    let named = try plan("-drive file=/a,if=virtio -drive file=/b,if=virtio,id=virtio0 -drive file=/c,id=ide0")
    #expect(named.drives.map(\.id) == ["virtio1", "virtio0", "ide0"])
    #expect(Set(try plan("-drive file=/a -drive file=/b,id=ide0-hd0").drives.map(\.id)).count == 2)
  }

  @Test func busNamesAPort() throws {
    for port in 0...5 {
      #expect(try drive("-drive if=none,id=d,file=/a -device ide-hd,drive=d,bus=ide.\(port)").port == port)
    }
    let named = try drive("-device ich9-ahci,id=sata -drive if=none,id=d,file=/a -device ide-hd,drive=d,bus=sata.1")
    #expect(named.port == 1)
  }

  @Test func emptyDriveHasNoMedium() throws {
    let drive = try drive("-device ide-cd,id=cd0")
    #expect(drive.source == .empty && drive.media == .cdrom && drive.deviceID == "cd0" && drive.port == 5)
  }

  @Test func globalsApplyWhereverTheyStand() throws {
    for line in [
      "-device ide-hd,drive=d -global ide-hd.serial=s -global ide-hd.ver=v -drive if=none,id=d,file=/a",
      "-global driver=ide-hd,property=serial,value=s -global ide-hd.ver=v -drive if=none,id=d,file=/a -device ide-hd,drive=d",
      "-drive if=ide,file=/a -global ide-hd.serial=s -global ide-hd.ver=v",
    ] {
      let drive = try drive(line)
      #expect(drive.serial == "s" && drive.firmwareVersion == "v", "\(line)")
    }
    let own = try drive("-device ide-hd,drive=d,serial=own -global ide-hd.serial=s -drive if=none,id=d,file=/a")
    #expect(own.serial == "own")
    #expect(try drive("-global virtio-blk-pci.serial=s -device ide-cd,id=c").serial == "")
  }
}

@Suite struct VirtioPlanTests {
  private static let source = "-drive if=none,id=drive0,file=/a "

  @Test func slotAndFunctionAreHexadecimal() throws {
    let drive = try drive(Self.source + "-device virtio-blk-pci,id=drv0,drive=drive0,addr=4.0")
    #expect(drive.interface == .virtio && drive.deviceID == "drv0")
    #expect(drive.pciAddress?.device == 4 && drive.pciAddress?.function == 0)
    #expect(try drive1("1e.7").pciAddress?.device == 0x1e)
    #expect(try drive1("0x06.0").pciAddress?.device == 6)
  }

  private func drive1(_ address: String) throws -> DriveConfiguration {
    try drive(Self.source + "-device virtio-blk-pci,drive=drive0,addr=\(address)")
  }

  @Test(arguments: [
    ("virtio-blk-pci", true), ("virtio-blk-pci-transitional", true), ("virtio-blk-pci-non-transitional", false),
    ("virtio-blk-pci,disable-legacy=on", false), ("virtio-blk-pci,disable-legacy=off", true), ("virtio-blk", true),
  ])
  func deviceIsTransitionalUnlessAskedOtherwise(_ row: (model: String, isTransitional: Bool)) throws {
    let drive = try drive(Self.source + "-device \(row.model),drive=drive0")
    #expect(drive.virtioInterface == (row.isTransitional ? .transitional : .modern))
  }

  @Test func propertiesAreTaken() throws {
    let drive = try drive(
      "-object iothread,id=t " + Self.source
        + "-device virtio-blk-pci,drive=drive0,num-queues=4,queue-size=128,iothread=t,serial=s,write-cache=off")
    #expect(drive.queueCount == 4 && drive.queueEntries == 128)
    #expect(drive.usesIOThread == true && drive.serial == "s" && drive.cache == .writethrough)
    #expect(try drive2("virtio-blk-device,drive=drive0").isOnBoard)
    #expect(try plan("-drive if=virtio,file=/a").drives.map(\.interface) == [.virtio])
  }

  private func drive2(_ device: String) throws -> DriveConfiguration { try drive(Self.source + "-device \(device)") }
}

@Suite struct NodePlanTests {
  @Test func nodesKnowWhatTheyStandOn() throws {
    let plan = try plan(
      "-blockdev driver=file,filename=/a,node-name=low -blockdev driver=raw,file=low,node-name=up "
        + "-blockdev driver=null-co,node-name=other -device virtio-blk-pci,drive=up")
    #expect(plan.lowerNodes == ["up": "low"])
    #expect(plan.spares.map(\.nodeName) == ["low", "other"])
    #expect(!plan.drives[0].hasName && plan.drives[0].nodeName == "up")
  }

  @Test(arguments: [
    #"-blockdev node-name=drive0,driver=file,filename=/a"#,
    #"-blockdev driver=raw,node-name=drive0,file.driver=file,file.filename=/a"#,
    #"-blockdev raw,node-name=drive0,file.driver=file,file.filename=/a"#,
    #"-blockdev {"driver":"raw","node-name":"drive0","file":{"driver":"file","filename":"/a"}}"#,
    #"-blockdev driver=file,filename=/a,node-name=below -blockdev driver=raw,file=below,node-name=drive0"#,
    #"-blockdev driver=raw,file=below,node-name=drive0 -blockdev driver=file,filename=/a,node-name=below"#,
  ])
  func nodeIsReadInEveryForm(_ line: String) throws {
    for device in ["ide-hd", "ide-cd", "virtio-blk-pci"] {
      let drive = try drive("\(line) -device \(device),id=x,drive=drive0")
      #expect(drive.source == .file(path: "/a"))
      #expect(drive.deviceID == "x")
      #expect(drive.nodeName == "drive0")
    }
  }

  @Test func nodesHaveTheirKeys() throws {
    let drive = try drive(
      #"-blockdev {"driver":"file","node-name":"n","filename":"/a","read-only":true,"cache":{"direct":true},"#
        + #""discard":"unmap"} -device virtio-blk-pci,drive=n"#)
    #expect(drive.isReadOnly && drive.cache == .none && !drive.ignoresDiscard)
    let null = try self.null("-blockdev driver=null-co,node-name=n,size=1048576,read-zeroes=on")
    #expect(null.source == .null(byteCount: 1 << 20, latencyNs: 0) && null.readsZeroes)
  }

  private func null(_ line: String) throws -> DriveConfiguration { try drive("\(line) -device virtio-blk-pci,drive=n") }

  @Test(arguments: [
    "-blockdev driver=blkdebug,node-name=n,image.driver=file,image.filename=/a,inject-error.0.event=write_aio",
    "-blockdev driver=file,node-name=f,filename=/a "
      + "-blockdev driver=blkdebug,node-name=n,image=f,inject-error.0.event=write_aio",
    "-blockdev driver=file,node-name=f,filename=/a -blockdev driver=raw,node-name=n,file=b "
      + "-blockdev driver=blkdebug,node-name=b,image=f,inject-error.0.event=write_aio",
    #"-blockdev {"driver":"raw","node-name":"n","file":{"driver":"blkdebug","#
      + #""image":{"driver":"file","filename":"/a"},"inject-error":[{"event":"write_aio"}]}}"#,
  ])
  func debugNodesHaveRulesAsOptions(_ line: String) throws {
    let drive = try drive("\(line) -device ide-hd,drive=n")
    #expect(drive.debugRules.count == 1 && drive.source == .file(path: "/a"))
  }

  @Test func debugNodesMayStandOnNothing() throws {
    let drive = try drive(
      "-blockdev driver=null-co,node-name=f,size=4096 "
        + "-blockdev driver=blkdebug,node-name=n,image=f,inject-error.0.event=write_aio -device ide-hd,drive=n")
    #expect(drive.debugRules.count == 1 && drive.source == .null(byteCount: 4096, latencyNs: 0))
  }
}

@Suite struct BootPlanTests {
  @Test func bootOptionsComeTogether() throws {
    let plan = try plan(
      "-boot once=d -boot order=nda,menu=on,strict=on -boot splash-time=5 -no-fd-bootchk "
        + "-uuid 00112233-4455-6677-8899-aabbccddeeff")
    var boot = QEMUPlan.Boot()
    (boot.order, boot.once, boot.hasMenu, boot.splashMs, boot.checksFloppy) = ("nda", "d", true, 5, false)
    #expect(plan.boot == boot)
    #expect(plan.uuid == (0..<16).map { UInt8($0 * 17) })
  }

  @Test(arguments: [
    "-boot order=xyz", "-boot aa", "-boot once=acdn", "-boot reboot-timeout=65536", "-boot splash=a.bmp",
    "-boot warp=9", "-uuid 1234",
  ])
  func mistakesAreToldInOneLine(_ line: String) throws {
    let error = try #require(throws: UsageError.self) { try plan(line) }
    #expect(error.description.hasPrefix(String(line.prefix { $0 != " " })))
    #expect(!error.description.contains("\n"))
  }

  @Test func legacyInterfaceMayBeTheOnlyOne() throws {
    let disk = "-drive if=none,id=d,file=/a -device virtio-blk-pci,drive=d"
    #expect(try plan(disk).drives.map(\.virtioInterface) == [.transitional])
    #expect(try plan(disk + ",disable-modern=on").drives.map(\.virtioInterface) == [.legacy])
    #expect(try plan(disk + ",disable-legacy=on").drives.map(\.virtioInterface) == [.modern])
  }

  @Test(arguments: [
    ("-M q35", 3), ("", 3), ("-M q35 -nodefaults", 1), ("-M pc", 4), ("-M pc -nodefaults", 2), ("-M q35 -nic none", 2),
    ("-M q35 -vga none", 2), ("-M pc -net none", 3), ("-M q35 -vga none -nic none", 1), ("-nodefaults -vga std", 2),
    ("-M q35 -nographic -monitor none -serial none", 3),
  ])
  func firstDiskIsWhereQEMUHasIt(_ row: (line: String, slot: Int)) throws {
    #expect(try plan(row.line).firstDiskSlot == row.slot)
  }

  @Test func busesThatThereAreMayBeNamed() throws {
    for bus in ["virtio-blk-pci,bus=pci.0", "virtio-blk-pci,bus=pcie.0", "virtio-blk-device,bus=virtio-mmio-bus.0"] {
      #expect(try plan("-drive if=none,id=d,file=/a -device \(bus),drive=d").drives.count == 1)
    }
  }

  @Test func boardDiskHasTheOldRegistersUnlessTheyAreNotForced() throws {
    let disk = "-drive if=none,id=d,file=/a -device virtio-blk-device,drive=d "
    #expect(try plan(disk).drives.map(\.virtioInterface) == [.legacy])
    #expect(try plan(disk + "-global virtio-mmio.force-legacy=on").drives.map(\.virtioInterface) == [.legacy])
    #expect(try plan(disk + "-global virtio-mmio.force-legacy=off").drives.map(\.virtioInterface) == [.modern])
  }

  @Test func unitsOfTheOlderPCsChannelsArePorts() throws {
    func port(_ line: String) throws -> [Int?] {
      try plan("-drive if=none,id=d,file=/a -drive if=none,id=e,file=/b " + line).drives.map(\.port)
    }
    #expect(try port("-M pc -device ide-hd,drive=d,bus=ide.1,unit=1") == [3])
    #expect(try port("-M pc -device ide-hd,drive=d,bus=ide.1 -device ide-hd,drive=e,bus=ide.1") == [2, 3])
    #expect(try port("-M q35 -device ide-hd,drive=d,bus=ide.1,unit=0") == [1])
    #expect(throws: UsageError.self) { try port("-M q35 -device ide-hd,drive=d,bus=ide.1,unit=1") }
    #expect(throws: UsageError.self) {
      try port("-M pc -device ide-hd,drive=d,bus=ide.0,unit=1 -device ide-hd,drive=e,bus=ide.0,unit=1")
    }
    #expect(try plan("-M pc -drive file=/a,if=ide,bus=1,unit=1").drives.map(\.port) == [3])
  }
}
