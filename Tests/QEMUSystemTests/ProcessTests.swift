// SPDX-License-Identifier: Apache-2.0
// The process: how it starts, answers and ends.
import Foundation
import Glibc
import Testing

@Suite struct ProcessTests {
  @Test func programsNameIsWhatTestProgramsExpect() {
    #expect(ShellProcess.program.contains("-system-"))
    #expect(ShellProcess.program.split(separator: "-").last == "x86_64")
  }

  @Test func greetsUnaskedAndIsLittleEndian() throws {
    // Machine.init reads the greeting before it sends anything, and asks for the byte order.
    let machine = try Machine("-M pc")
    #expect(machine.monitor.greeting["version"] is [String: Any])
    #expect(machine.monitor.greeting["capabilities"] is [Any])
  }

  @Test(arguments: ["-M pc", "-M q35", "-machine none"]) func endsWithStatusZeroOnSIGTERM(_ board: String) throws {
    let machine = try Machine(board)
    #expect(machine.process.end() == 0)
    #expect(machine.process.standardOutput == "")
    #expect(machine.process.standardError == "")
  }

  @Test func saysNothingOnStandardOutputWhileItWorks() throws {
    let folder = try Folder()
    let image = try folder.image()
    let machine = try Machine(
      "-M q35 -drive if=none,id=drive0,file=\(image),format=raw,cache=writeback -device ide-hd,drive=drive0",
      folder: folder)
    let hba = try HBA(machine)
    try hba.enable()
    let port = try hba.startedPort(5)
    try port.run(.writeDMA(sector: 0, count: 1), writing: pattern(512)).expectSuccess()
    #expect(machine.process.end() == 0)
    #expect(machine.process.standardOutput == "")
  }

  @Test(arguments: [
    "-warp 9", "-M vax", "-drive if=none,id=drive0,file=/nonexistent/disk.img,format=raw -device ide-hd,drive=drive0",
    "-device ide-hd,drive=nobody", "-m banana", "-device warp-drive",
    "-blockdev node-name=drive0,driver=file,filename=/nonexistent/disc.iso -device ide-cd,drive=drive0",
    "-blockdev node-name=unused,driver=file,filename=/nonexistent/disc.iso",
    "-drive if=none,id=drive0,file='/nonexistent/two\nlines'", "-qmp unix:/nonexistent/socket,server=on",
    "-qmp fd:999", "-serial file:/nonexistent/file",
  ])
  func startUpErrorEndsAtOnceWithAMessage(_ options: String) throws {
    let folder = try Folder()
    let qtest = try ListeningSocket(folder.file("qtest")), monitor = try ListeningSocket(folder.file("qmp"))
    let process = try ShellProcess(
      "-qtest unix:\(qtest.path) -qtest-log /dev/null -chardev socket,path=\(monitor.path),id=char0 "
        + "-mon chardev=char0,mode=control -display none \(options) -accel qtest", folder: folder)
    let status = process.waitForEnd()
    #expect(status == 1)
    #expect(process.standardError.hasPrefix("qemu-system-x86_64: "), "\(process.standardError)")
    #expect(process.standardError.filter { $0 == "\n" }.count == 1)
    #expect(process.standardOutput == "")
  }

  @Test func endsWithTheProcessThatStartedItWhereThatIsAskedFor() throws {
    let folder = try Folder()
    let qtest = try ListeningSocket(folder.file("qtest"))
    let shell = try ShellProcess(
      "-qtest unix:\(qtest.path) -qtest-log none -display none -M q35 -run-with exit-with-parent=on -accel qtest",
      folder: folder, isChildOfTheShell: true)
    let socket = try qtest.accept(from: shell)
    try socket.send("endianness")
    #expect(try socket.line() == "OK little")
    shell.end(SIGKILL)
    // The machine closes its end.
    #expect(try socket.line() == nil)
  }

  @Test func clientThatVanishesEndsTheMachineInGoodOrder() throws {
    let machine = try Machine("-M q35")
    machine.vanish()
    #expect(machine.process.waitForEnd() == 0)
  }

  @Test func twoMachinesRunSideBySide() throws {
    let one = try Machine("-M q35"), other = try Machine("-M pc")
    try one.store(0x10_0000, 1, .quad)
    try other.store(0x10_0000, 2, .quad)
    #expect(try one.load(0x10_0000, .quad) == 1)
    #expect(try other.load(0x10_0000, .quad) == 2)
    #expect(one.process.end() == 0)
    #expect(try other.load(0x10_0000, .quad) == 2)
    #expect(other.process.end() == 0)
  }

  @Test func commandLineMayComeInAnyOrder() throws {
    let folder = try Folder()
    let image = try folder.image()
    let machine = try Machine(
      "-device ide-hd,drive=drive0 -global ide-hd.serial=s1 -m 384 "
        + "-drive file=\(image),format=raw,if=none,id=drive0,cache=writeback -global ide-hd.ver=v1 -M q35",
      folder: folder)
    let port = try HBA(machine).prepared(5)
    let identity = try port.identity()
    #expect(HBA.text(identity[20..<40]) == "s1                  ")
    #expect(HBA.text(identity[46..<54]) == "v1      ")
  }

  @Test func conversationIsLoggedWhereTheLogIsStandardError() throws {
    let folder = try Folder()
    let qtest = try ListeningSocket(folder.file("qtest"))
    let process = try ShellProcess(
      "-qtest unix:\(qtest.path) -qtest-log /dev/fd/2 -display none -machine none -accel qtest", folder: folder)
    let socket = try qtest.accept(from: process)
    try socket.send("endianness")
    #expect(try socket.line() == "OK little")
    #expect(process.end() == 0)
    #expect(process.standardError.contains("endianness"))
    #expect(process.standardError.contains("OK little"))
  }

  @Test func standardStreamsCarryTheProtocol() throws {
    let folder = try Folder()
    let lines = try folder.text("lines", "endianness\noutl 0xcf8 0x8000fa00\ninw 0xcfc\nreadq 0x0\n")
    let process = try ShellProcess(
      "-qtest stdio -qtest-log none -display none -M q35 -accel qtest <\(lines)", folder: folder)
    #expect(process.waitForEnd() == 0)
    #expect(process.standardOutput == "OK little\nOK\nOK 0x8086\nOK 0x0000000000000000\n")
  }
}

@Suite struct MachineListTests {
  @Test(arguments: [Machine.Library.v7, .v10, .newest])
  func machinesHaveExactlyTheMembersThatClientsParse(_ library: Machine.Library) throws {
    let machine = try Machine("-machine none", library: library)
    let machines = try #require(try machine.monitor.execute("query-machines") as? [[String: Any]])
    #expect(machines.count == 1)
    let members = try #require(machines.first)
    let names: Set = ["name", "cpu-max", "hotpluggable-cpus", "numa-mem-supported", "deprecated"]
    #expect(Set(members.keys) == (library != .v7 ? names.union(["acpi"]) : names))
    #expect(members["name"] as? String == "pc")
    #expect(members["cpu-max"] is Int)
    #expect(machine.process.end() == 0)
  }

  @Test(arguments: [("7.2", Machine.Library.v10), ("10.0", .v7)])
  func environmentSaysWhichVersionsReplies(_ row: (version: String, library: Machine.Library)) throws {
    // Against what the options look like.
    let machine = try Machine(
      "-machine none", library: row.library, variable: "SPINDLE_QEMU_VERSION=\(row.version)")
    let machines = try #require(try machine.monitor.execute("query-machines") as? [[String: Any]])
    #expect(machines.first?.keys.contains("acpi") == (row.version == "10.0"))
    let version = try #require(try machine.monitor.execute("query-version") as? [String: Any])
    let number = try #require(version["qemu"] as? [String: Any])
    #expect(number["major"] as? Int == (row.version == "10.0" ? 10 : 7))
  }

  @Test func unknownVersionIsNamed() throws {
    let process = try ShellProcess("-machine none", folder: Folder(), variable: "SPINDLE_QEMU_VERSION=9")
    #expect(process.waitForEnd() == 1)
    #expect(
      process.standardError == "qemu-system-x86_64: SPINDLE_QEMU_VERSION=9: unknown; choose 7.2 or 10.0\n")
  }

  @Test func deviceTypesHaveNamesAndParents() throws {
    let machine = try Machine("-machine none")
    let types = try #require(
      try machine.monitor.execute("qom-list-types", ["implements": "device", "abstract": true]) as? [[String: Any]])
    let names = types.compactMap { $0["name"] as? String }
    #expect(names.count == types.count)
    #expect(Set(["device", "ide-hd", "ide-cd", "virtio-blk-pci", "ich9-ahci"]).isSubset(of: names))
    for type in types { #expect(Set(type.keys).isSubset(of: ["name", "parent", "abstract"])) }
  }

  @Test func runStateIsTold() throws {
    let machine = try Machine("-M pc")
    let status = try #require(try machine.monitor.execute("query-status") as? [String: Any])
    #expect(status["running"] as? Bool == true)
    #expect(status["status"] as? String == "running")
  }

  @Test func unknownCommandIsAnErrorWithItsClass() throws {
    let machine = try Machine("-M pc")
    #expect(try machine.monitor.refusal("warp").kind == "CommandNotFound")
  }

  @Test func stopContinueAndResetAreToldBeforeTheirReturns() throws {
    let machine = try Machine("-M pc")
    machine.monitor.forget()
    for command in ["stop", "cont", "system_reset"] { try machine.monitor.execute(command) }
    let told = machine.monitor.history
    #expect(told == ["STOP", "return", "RESUME", "return", "RESET", "return"])
  }
}

@Suite struct ShutdownTests {
  /// Switches the machine off as a guest does (ACPI's state S5).
  private func switchOff(_ machine: Machine) throws {
    let bridge = Machine.Place(device: 0x1f, function: 0)
    try machine.setConfig(bridge, 0x40, 0x601)
    try machine.setConfig(bridge, 0x44, 0x80)
    try machine.output(0x604, 0x2000, .word)
  }

  @Test(arguments: ["-no-shutdown", "-action shutdown=pause"])
  func aProcessThatStaysHasItsMachineBeginAnew(_ option: String) throws {
    let machine = try Machine("-M q35 \(option)")
    machine.monitor.forget()
    try switchOff(machine)
    #expect(try machine.monitor.event("SHUTDOWN")["reason"] as? String == "guest-shutdown")
    try machine.monitor.event("STOP")
    let status = try #require(try machine.monitor.execute("query-status") as? [String: Any])
    #expect(status["status"] as? String == "shutdown" && status["running"] as? Bool == false)
    #expect(try machine.monitor.refusal("cont").text == "Resetting the Virtual Machine is required")
    // The client of qtest is served all the while.
    #expect(try machine.ask("endianness") == "OK little")
    for command in ["system_reset", "cont"] { try machine.monitor.execute(command) }
    #expect(machine.monitor.history.suffix(4) == ["RESET", "return", "RESUME", "return"])
    try machine.monitor.execute("quit")
    #expect(machine.process.waitForEnd() == 0)
  }

  @Test func theGuestsEndIsTheProcesssOtherwise() throws {
    let machine = try Machine("-M q35 -action panic=none")
    try? switchOff(machine)
    #expect(try machine.monitor.event("SHUTDOWN")["guest"] as? Bool == true)
    #expect(machine.process.waitForEnd() == 0)
  }

  @Test func theProcesssNumberIsInItsFileAsLongAsItIsThere() throws {
    let folder = try Folder()
    let file = folder.file("pid")
    let machine = try Machine("-M q35 -pidfile \(file)", folder: folder)
    let text = try String(contentsOfFile: file, encoding: .utf8)
    #expect(Int(text.dropLast()) ?? 0 > 0 && text.hasSuffix("\n"))
    #expect(machine.process.end() == 0)
    #expect(!FileManager.default.fileExists(atPath: file))
  }

  @Test func unusedNodesCanBePutIntoADrive() throws {
    let folder = try Folder()
    let image = try folder.image()
    let machine = try Machine(
      "-M q35 -device ide-cd,id=cd0,bus=ide.0 -blockdev driver=file,filename=\(image),node-name=low "
        + "-blockdev driver=raw,file=low,node-name=disc", folder: folder)
    let monitor = machine.monitor
    let nodes = try #require(try monitor.execute("query-named-block-nodes") as? [[String: Any]])
    #expect(Set(nodes.compactMap { $0["node-name"] as? String }) == ["low", "disc"])
    #expect(try monitor.refusal("blockdev-del", ["node-name": "low"]).text == "Node low is in use")
    try monitor.execute("blockdev-open-tray", ["id": "cd0"])
    try monitor.execute("blockdev-insert-medium", ["id": "cd0", "node-name": "disc"])
    let devices = try #require(try monitor.execute("query-chardev") as? [[String: Any]])
    #expect(Set(devices.compactMap { $0["label"] as? String }) == ["char0", "qtest"])
    #expect(devices.allSatisfy { $0["frontend-open"] as? Bool == true })
    #expect(machine.process.end() == 0)
  }
}

@Suite struct ProtocolTests {
  @Test func requestsAreAnsweredAsClientsParseThem() throws {
    let machine = try Machine("-M q35")
    for (line, reply) in [
      ("writeq 0x100000 0x1122334455667788", "OK"), ("readb 0x100007", "OK 0x0000000000000011"),
      ("readw 0x100006", "OK 0x0000000000001122"), ("readl 0x100000", "OK 0x0000000055667788"),
      ("readq 0x100000", "OK 0x1122334455667788"), ("read 0x100000 0x8", "OK 0x8877665544332211"),
      ("memset 0x0 0x0 0x00", "OK"), ("memset 0x100000 0x4 0xAB", "OK"), ("read 1048576 010", "OK 0xabababab44332211"),
      ("write 0x100000 0x4 0xCDEF", "OK"), ("read 0x100000 4", "OK 0xcdef0000"),
      ("write 0x100000 0x2 0x11223344", "OK"), ("read 0x100000 4", "OK 0x11220000"),
      ("b64write 0x100000 0x3 AQID", "OK"), ("b64read 0x100000 0x4", "OK AQIDAA=="), ("outb 0x0 0x0", "OK"),
      ("inb 0x1234", "OK 0x00ff"), ("inw 0x1234", "OK 0xffff"), ("inl 0x1234", "OK 0xffffffff"),
      ("readl 0xd0000000", "OK 0x0000000000000000"), ("irq_intercept_in ioapic", "OK"),
      ("clock_step 100", "OK 100"), ("clock_set 5000", "OK 5000"),
    ] { #expect(try machine.ask(line) == reply, "\(line)") }
    #expect(try machine.ask("inb 0").hasPrefix("OK 0x"))
    #expect(try machine.ask("clock_step").hasPrefix("OK "))
    #expect(try machine.ask("warp 9").hasPrefix("FAIL Unknown command 'warp'"))
    #expect(try machine.ask("endianness") == "OK little")
  }

  @Test(arguments: [
    "readl", "readl 0x", "write 0x0 0x4 4", "memset 0x0 0xffffffffffffffff 0", "read 0 0", "b64write 0 3 !!!!",
    "outl 0xcf8", "clock_step -5", "read 0xffffffffffffffff 2",
  ]) func badLineIsAnsweredAndTheMachineLives(_ line: String) throws {
    let machine = try Machine("-M q35")
    let reply = try machine.ask(line)
    #expect(reply.hasPrefix("FAIL") || reply.hasPrefix("OK"))
    #expect(try machine.ask("endianness") == "OK little")
  }

  @Test func longBase64LinesAreTaken() throws {
    let machine = try Machine("-M q35")
    let bytes = pattern(256 << 10)
    try machine.setBytes(0x20_0000, bytes)
    #expect(try machine.bytes(0x20_0000, bytes.count) == bytes)
  }

  @Test(arguments: ["-M pc", "-M q35"]) func memoryIsZeroAtTheStart(_ board: String) throws {
    let machine = try Machine(board)
    for address in stride(from: UInt64(0), to: 128 << 20, by: 1 << 20) {
      #expect(try machine.bytes(address, 0x400).allSatisfy { $0 == 0 }, "at \(address)")
    }
    // The end of 128 MiB, which is what a machine has by itself.
    #expect(try machine.bytes((128 << 20) - 4096, 4096).allSatisfy { $0 == 0 })
  }

  @Test(arguments: [("", UInt64(128)), ("-m 384", 384), ("-m 512M", 512)])
  func firmwareConfigurationTellsTheSizeOfMemory(_ row: (option: String, mebibytes: UInt64)) throws {
    let machine = try Machine("-M q35 \(row.option)")
    try machine.output(0x510, 0, .word)
    let name = try (0..<4).map { _ in UInt8(try machine.input(0x511, .byte)) }
    #expect(String(decoding: name, as: UTF8.self) == "QEMU")
    try machine.output(0x510, 3, .word)
    let size = try (0..<8).map { _ in UInt8(try machine.input(0x511, .byte)) }.littleEndian64(at: 0)
    #expect(size == row.mebibytes << 20)
    #expect(try machine.load(size - 8, .quad) == 0)
    try machine.store(size - 8, 0x1234, .quad)
    #expect(try machine.load(size - 8, .quad) == 0x1234)
  }
}
