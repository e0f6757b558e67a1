// SPDX-License-Identifier: Apache-2.0
// Virtio disks that are plugged into a machine that runs, used by a guest program, and ejected.
import Accelerators
import EventLoop
import Machine
import Platform
import Synchronization
import Testing

import struct GuestDrivers.TestProgram

@testable import Assembly

@Suite(.timeLimit(.minutes(2))) struct DriveHotPlugTests {
  private func assemble(_ drives: [String] = [], iothread: Bool = false) throws -> AssembledMachine {
    var configuration = MachineConfiguration()
    configuration.memoryBytes = 64 << 20
    configuration.usesIOThreads = iothread
    for (index, text) in drives.enumerated() {
      configuration.drives.append(try DriveConfiguration(parsing: text, index: index))
    }
    return try AssembledMachine(configuration, serial: MemorySink())
  }

  private static let memoryDisk = "driver=memory,size=1M,id=new"

  @Test(arguments: [false, true]) func guestUsesAPluggedDiskAndEjectsIt(iothread: Bool) throws {
    let assembled = try assemble(iothread: iothread)
    let machine = assembled.machine
    let drive = try DriveConfiguration(parsing: Self.memoryDisk, index: 0)
    let disk = try machine.lock.withLock { try assembled.plugVirtioDisk(drive, at: PCIAddress(device: 6)) }
    #expect(assembled.backends.count == 1)
    machine.lock.withLock {
      machine.events.observe { event in
        if event == .deviceDeleted(device: "new") { machine.requestShutdown(.hostRequest) }
      }
    }
    let seen = Mutex<(failures: Int, before: UInt32, removable: UInt32, after: UInt32)>((-1, 0, 0, 0))
    _ = assembled.useHosted(processorCount: 1) { bus in
      let failures = TestProgram(bus: bus, commandLine: Array("disk=plain".utf8)).run()
      func vendor() -> UInt32 {
        bus.out32(0xcf8, 0x8000_3000)
        return bus.in32(0xcfc)
      }
      let before = vendor()
      let removable = bus.in32(0xae0c)
      bus.out32(0xae08, 0x40)
      let after = vendor()
      seen.withLock { $0 = (failures, before, removable, after) }
    }
    #expect(try assembled.run() == .hostRequest)
    let result = seen.withLock { $0 }
    #expect(result.failures == 0)
    #expect(result.before == 0x1042_1af4)
    #expect(result.removable == 0x40)
    #expect(result.after == 0xffff_ffff)
    #expect(assembled.disks.isEmpty && assembled.backends.isEmpty)
    #expect(disk.machine == nil)
  }

  @Test func unplugWaitsForTheGuest() throws {
    let assembled = try assemble([Self.memoryDisk])
    let machine = assembled.machine
    try machine.lock.withLock {
      try assembled.unplug("new")
      #expect(machine.portSpace.read(0xae04, width: 4) == 8)
      #expect(machine.pci.function(at: PCIAddress(device: 3)) != nil)
      let error = try #require(throws: SetupError.self) { try assembled.unplug("new") }
      #expect(error.description == "disk new is being unplugged already")
    }
  }

  @Test func whatCannotBePluggedIsRefusedInOneLine() throws {
    let assembled = try assemble([Self.memoryDisk])
    func error(_ text: String, at address: PCIAddress? = nil) throws -> String {
      let drive = try DriveConfiguration(parsing: text, index: 0)
      return try assembled.machine.lock.withLock {
        try #require(throws: SetupError.self) { try assembled.plugVirtioDisk(drive, at: address) }.description
      }
    }
    #expect(try error(Self.memoryDisk) == "there is a device named new already")
    let other = "driver=memory,size=1M,id=other"
    #expect(try error(other, at: PCIAddress(device: 3)) == "PCI address 03.0 is taken")
    #expect(try error(other, at: PCIAddress(device: 6, function: 1)).contains("function 0"))
    #expect(try error(other + ",if=ahci").contains("only if=virtio"))
    #expect(try #require(throws: SetupError.self) { try assembled.unplug("none") }.description.contains("none"))
    #expect(assembled.backends.count == 1)
  }

  @Test func disksOnTheBoardTakePlacesOfTheirOwn() throws {
    let disks = ["driver=memory,size=1M,if=virtio-mmio,id=a", "driver=memory,size=1M,id=b"]
    let assembled = try assemble(disks + ["driver=memory,size=1M,if=virtio-mmio,id=c", "driver=memory,size=1M,id=d"])
    assembled.machine.lock.withLock {
      #expect(assembled.machine.memorySpace.read(0xfeb0_0008, width: 4) == 2)
      #expect(assembled.machine.memorySpace.read(0xfeb0_0208, width: 4) == 2)
      #expect(assembled.machine.memorySpace.read(0xfeb0_0408, width: 4) == nil)
    }
    #expect(assembled.machine.pci.function(at: PCIAddress(device: 3))?.name == "b")
    #expect(assembled.machine.pci.function(at: PCIAddress(device: 4))?.name == "d")
    let error = try #require(throws: SetupError.self) { try assembled.unplug("a") }
    #expect(error.description.contains("not on the PCI bus"))
    let full = [String](repeating: "driver=memory,size=1M,if=virtio-mmio", count: 9)
    #expect(throws: SetupError.self) { try assemble(full) }
    #expect(throws: UsageError.self) { try DriveConfiguration(parsing: disks[0] + ",transitional=on", index: 0) }
  }

  @Test func powerButtonIsTold() throws {
    let assembled = try assemble()
    assembled.machine.lock.withLock {
      var told: [MachineEvent] = []
      assembled.machine.events.observe { told.append($0) }
      assembled.pressPowerButton()
      #expect(told == [.powerdown])
    }
  }

  @Test func memoryMapIsAFile() throws {
    let assembled = try assemble()
    #expect(throws: FirmwareFileError.self) { try assembled.firmware.add(file: "etc/e820", bytes: []) }
  }

  @Test(arguments: [("on", 0x1001_1af4), ("off", 0x1042_1af4), ("only", 0x1001_1af4)] as [(String, UInt32)])
  func transitionalDiskIsAnOptionOfItsDrive(value: String, id: UInt32) throws {
    let assembled = try assemble([Self.memoryDisk + ",transitional=\(value)"])
    #expect(assembled.disks[0].configurationRead(offset: 0, width: 4) == id)
    let error = try #require(throws: UsageError.self) {
      try DriveConfiguration(parsing: "file=a,if=ahci,transitional=\(value)", index: 0)
    }
    #expect(error.description.contains("transitional=\(value) goes with if=virtio only"))
  }
}
