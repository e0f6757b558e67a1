// SPDX-License-Identifier: Apache-2.0
import Accelerators
import EventLoop
import GuestDrivers
import GuestImages
import GuestMemory
import HostSystem
import Machine
import Platform
import Testing

/// The test guest on a machine without disks: from the image's bytes to the report on the serial port.
@Suite struct TestGuestTests {
  private final class Computer {
    let machine: Machine
    let sink = MemorySink()

    init(processorCount: Int) throws {
      let memoryBytes: UInt64 = 64 << 20
      machine = Machine(memory: try MachineMemory.make(byteCount: memoryBytes), mainLoop: try EventLoop(name: "main"))
      machine.add(SerialPort(sink: sink))
      machine.add(DebugExit())
      machine.add(FirmwareConfig(memoryBytes: memoryBytes, processorCount: processorCount))
      machine.lock.withLock { machine.pci.enableECAM(at: 0xb000_0000) }
    }

    /// The cases of the report, without their numbers.
    var cases: [Substring] {
      sink.text.split(separator: "\n").filter { $0.hasPrefix("ok ") || $0.hasPrefix("not ok ") }
    }
  }

  private func runHosted(processorCount: Int) throws -> Computer {
    let computer = try Computer(processorCount: processorCount)
    let accelerator = HostedAccelerator(machine: computer.machine, processorCount: processorCount) { bus in
      let failures = TestProgram(bus: bus, commandLine: []).run()
      bus.out8(DebugExit.standardPort, UInt8(failures))
    }
    computer.machine.vcpus = accelerator
    #expect(try computer.machine.run() == .guestExit(status: 3))
    return computer
  }

  @Test func theHostedProgramReportsAMachineWithoutDisks() throws {
    let computer = try runHosted(processorCount: 2)
    #expect(computer.cases.filter { $0.hasPrefix("not") }.count == 1)
    #expect(computer.cases.contains { $0.hasPrefix("not ok") && $0.hasSuffix("there is a disk") })
    #expect(computer.sink.text.contains("\n1..\(computer.cases.count)\n"))
  }

  @Test(.enabled(if: kvmWorks, "KVM works here"), arguments: [1, 2])
  func theBootedImageReportsTheSameAsTheHostedProgram(processorCount: Int) throws {
    let computer = try Computer(processorCount: processorCount)
    let image = try ELFImage(GuestImage.testguest)
    let boot = try PVHLoader.load(image: image, into: computer.machine.memory, commandLine: "")
    let accelerator = try KVMAccelerator(machine: computer.machine, processorCount: processorCount)
    try accelerator.boot(entry: boot.entry, startInfo: boot.startInfo)
    let machine = computer.machine
    accelerator.onTripleFault = { machine.requestReset() }
    accelerator.onFault = { _ in machine.requestShutdown(.guestFault) }
    machine.vcpus = accelerator
    #expect(try machine.run() == .guestExit(status: 3))
    let hosted = try runHosted(processorCount: processorCount)
    #expect(computer.cases == hosted.cases)
  }
}
