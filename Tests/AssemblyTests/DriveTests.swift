// SPDX-License-Identifier: Apache-2.0
// Where a drive goes: behind virtio or the AHCI controller, as a disk or a CD-ROM drive, and on which port.
import Accelerators
import EventLoop
import GuestDrivers
import Machine
import Platform
import Synchronization
import Testing

@testable import Assembly

@Suite struct DriveOptionTests {
  private func parse(_ text: String) throws -> DriveConfiguration { try DriveConfiguration(parsing: text, index: 0) }

  @Test func driveIsAVirtioDiskByDefault() throws {
    let drive = try parse("file=a")
    #expect(drive.interface == .virtio && drive.media == .disk && drive.port == nil && !drive.isReadOnly)
  }

  @Test(arguments: ["ahci", "ide"])
  func ideIsAnotherNameOfAHCI(name: String) throws {
    let drive = try parse("file=a,if=\(name),port=5,serial=S 1")
    #expect(drive.interface == .ahci && drive.media == .disk && drive.port == 5 && !drive.isReadOnly)
    #expect(drive.serial == "S 1")
  }

  @Test(arguments: ["", ",if=ahci", ",if=ide", ",readonly=on"])
  func cdromIsReadOnlyAndOnTheAHCIController(others: String) throws {
    let drive = try parse("file=a.iso,media=cdrom" + others)
    #expect(drive.interface == .ahci && drive.media == .cdrom && drive.isReadOnly)
    #expect(drive.source == .file(path: "a.iso"))
  }

  @Test func cdromWithoutAFileIsAnEmptyDrive() throws {
    #expect(try parse("media=cdrom").source == .empty)
    #expect(try parse("media=cdrom,driver=memory,size=1M").source == .memory(byteCount: 1 << 20))
  }

  @Test(arguments: [
    ("file=a,if=virtio,media=cdrom", "if=virtio has no CD-ROM drives; write if=ahci,media=cdrom"),
    ("if=virtio,media=cdrom", "write if=ahci,media=cdrom"),
    ("file=a,media=cdrom,readonly=off", "readonly=off: the disc of media=cdrom cannot be written; leave readonly= out"),
    ("file=a,media=dvd", "choose one of disk, cdrom"), ("media=cdrom,driver=file", "write file=PATH"),
    ("media=cdrom,size=1M", "size= goes with driver=null"), ("media=disk,if=ahci", "write file=PATH"),
    ("file=a,if=ahci,port=6", "port=6 is not a whole number from 0 to 5"),
    ("file=a,if=ahci,port=-1", "from 0 to 5"), ("file=a,if=ahci,port=one", "port=one is not a whole number"),
    ("file=a,port=0", "port=0 goes with if=ahci only; write if=ahci or leave port= out"),
    ("file=a,if=ahci,queues=1", "queues=1 goes with if=virtio only; leave queues= out"),
    ("file=a,if=ide,queue-size=256", "queue-size=256 goes with if=virtio only; leave queue-size= out"),
    ("media=cdrom,queues=2", "queues=2 goes with if=virtio only"),
    ("file=a,if=ahci,serial=123456789012345678901", "longer than 20 bytes"),
    ("file=a,if=ahci,serial=größe", "printable ASCII only"),
  ])
  func mistakeIsNamed(text: String, part: String) throws {
    let error = try #require(throws: UsageError.self) { try parse(text) }
    #expect(error.description.contains(part), "\(error)")
    #expect(error.description.hasPrefix("--drive"))
    #expect(!error.description.contains("\n"))
  }
}

@Suite struct AHCIPortTests {
  private func assign(_ drives: [String]) throws -> [Int?] {
    try AHCIPorts.assign(drives.enumerated().map { try DriveConfiguration(parsing: $1, index: $0) })
  }

  @Test func drivesTakeTheFirstFreePortsInTheirOrder() throws {
    #expect(try assign(["file=a,if=ahci", "file=b", "media=cdrom", "file=c,if=ide"]) == [0, nil, 1, 2])
  }

  @Test func portThatALaterDriveNamesIsNotFree() throws {
    #expect(try assign(["file=a,if=ahci", "file=b,if=ahci,port=0", "media=cdrom"]) == [1, 0, 2])
  }

  @Test func sixDrivesFillTheController() throws {
    let drives = ["file=a,if=ahci,port=3"] + [String](repeating: "media=cdrom", count: 5)
    #expect(try assign(drives) == [3, 0, 1, 2, 4, 5])
  }

  @Test func virtioDrivesTakeNoPort() throws {
    #expect(try assign([String](repeating: "file=a", count: 9)) == [Int?](repeating: nil, count: 9))
  }

  @Test(arguments: [
    (
      ["file=a,if=ahci,port=2,id=x", "media=cdrom,port=2,id=y"],
      "port=2 of drive y is taken by drive x; choose another port"
    ),
    (
      [String](repeating: "media=cdrom", count: 7),
      "if=ahci: 7 drives do not fit on the controller's 6 ports; use if=virtio for the others"
    ),
  ])
  func drivesThatDoNotFitAreRefused(drives: [String], part: String) throws {
    let error = try #require(throws: UsageError.self) { try assign(drives) }
    #expect(error.description.contains(part), "\(error)")
  }

  @Test func portOutsideTheControllerIsRefused() throws {
    var drive = try DriveConfiguration(parsing: "media=cdrom", index: 0)
    drive.port = 6
    let error = try #require(throws: UsageError.self) { try AHCIPorts.assign([drive]) }
    #expect(error.description.contains("there are ports 0 to 5"))
  }
}

@Suite struct DriveSetTests {
  private func assemble(_ drives: [String], iothread: Bool = false) throws -> AssembledMachine {
    var configuration = MachineConfiguration()
    configuration.memoryBytes = 64 << 20
    configuration.usesIOThreads = iothread
    for (index, text) in drives.enumerated() {
      configuration.drives.append(try DriveConfiguration(parsing: text, index: index))
    }
    return try AssembledMachine(configuration, serial: MemorySink())
  }

  @Test(arguments: [[], ["driver=memory,size=1M,if=ahci"]])
  func everyMachineHasTheControllerOfAQ35(drives: [String]) throws {
    let ahci = try assemble(drives).ahci
    #expect(ahci.address == PCIAddress(device: 0x1f, function: 2))
    #expect(ahci.configurationRead(offset: PCIRegister.vendor, width: 4) == 0x2922_8086)
    #expect(ahci.configurationRead(offset: PCIRegister.revision, width: 4) >> 8 == 0x010601)
  }

  /// Only what is connected to a running machine counts as hot plug: PxSERR is 0 at power-on (AHCI 1.3.1 §3.3.12).
  @Test func drivesThatAreThereFromTheStartAreNoNews() throws {
    let assembled = try assemble(["driver=memory,size=1M,if=ahci", "media=cdrom"])
    let abar: UInt64 = 0xe000_0000
    assembled.machine.lock.withLock {
      assembled.ahci.configurationWrite(offset: 0x24, width: 4, value: UInt32(abar))
      assembled.ahci.configurationWrite(offset: PCIRegister.command, width: 2, value: 2)
      for port: UInt64 in [0, 1] {
        let registers = abar + 0x100 + port * 0x80
        #expect(assembled.machine.memorySpace.read(registers + 0x28, width: 4) == 0x113)
        #expect(assembled.machine.memorySpace.read(registers + 0x30, width: 4) == 0)
        #expect(assembled.machine.memorySpace.read(registers + 0x10, width: 4) == 0)
      }
    }
  }

  @Test func backendsAreThoseOfAllDrivesInTheirOrder() throws {
    let assembled = try assemble([
      "driver=memory,size=1M,if=ahci", "driver=memory,size=2M", "media=cdrom", "driver=memory,size=3M,media=cdrom",
      "driver=memory,size=4M",
    ])
    #expect(assembled.backends.map(\.byteCount) == [1, 2, 3, 4].map { $0 << 20 })
    // Virtio disks keep their slots without gaps, whatever stands between them.
    #expect(assembled.disks.map(\.address) == [PCIAddress(device: 3), PCIAddress(device: 4)])
  }

  @Test func ahciDrivesStayOnTheMainLoopAndSaySo() throws {
    let assembled = try assemble(
      ["driver=memory,size=1M,if=ahci,id=disk", "driver=memory,size=1M,id=virtio", "media=cdrom,id=cd"], iothread: true)
    let mainLoop = assembled.machine.mainLoop
    #expect(assembled.backends.map { $0.loop === mainLoop } == [true, false])
    let part = "on the main loop, as every drive with if=ahci; --iothread is for if=virtio"
    #expect(assembled.notes == ["drive disk: \(part)", "drive cd: \(part)"])
  }

  @Test(.timeLimit(.minutes(2)))
  func guestFindsEachDriveOnItsPort() throws {
    let assembled = try assemble([
      "driver=memory,size=1M,if=ahci,port=1,serial=DISK-ONE", "media=cdrom", "driver=memory,size=2M,media=cdrom,port=5",
      "driver=memory,size=3M,if=ide",
    ])
    let machine = assembled.machine
    let found = Mutex<[Int: AHCIDeviceKind]>([:])
    let disk = Mutex<(serial: String, sectorCount: UInt64)?>(nil)
    _ = assembled.useHosted(processorCount: 1) { bus in
      defer { machine.requestShutdown(.hostRequest) }
      let topology = PCITopology(bus: bus)
      guard let entry = topology.entries.first(where: { AHCIController<HostedBus>.drives($0.function) }),
        let controller = try? AHCIController(topology: topology, entry: entry), (try? controller.start()) != nil
      else { return }
      for port in controller.ports { found.withLock { $0[port.number] = port.kind } }
      guard let identity = controller.ports.first(where: { $0.number == 1 })?.identity else { return }
      disk.withLock { $0 = (String(decoding: identity.serial, as: UTF8.self), identity.sectorCount) }
    }
    #expect(try assembled.run() == .hostRequest)
    #expect(found.withLock { $0 } == [0: .atapi, 1: .ata, 2: .ata, 3: .none, 4: .none, 5: .atapi])
    let identity = try #require(disk.withLock { $0 })
    #expect(identity.serial.hasPrefix("DISK-ONE") && identity.sectorCount == 2048)
  }

  @Test func withoutIOThreadsThereIsNothingToSay() throws {
    #expect(try assemble(["driver=memory,size=1M,if=ahci", "media=cdrom"]).notes.isEmpty)
  }

  @Test func twentyEightVirtioDisksFitBesideSixAHCIDrives() throws {
    let virtio = [String](repeating: "driver=null,size=1M", count: 28)
    let ahci = [String](repeating: "driver=null,size=1M,if=ahci", count: 6)
    #expect(try assemble(virtio + ahci).backends.count == 34)
    let error = try #require(throws: SetupError.self) { try assemble(virtio + ["driver=null,size=1M"] + ahci) }
    #expect(error.description.contains("29 virtio drives do not fit on the PCI bus; 28 do"))
  }
}
