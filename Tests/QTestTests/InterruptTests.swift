// SPDX-License-Identifier: Apache-2.0
import HostSystem
import Machine
import Testing

@testable import Accelerators

@Suite(.timeLimit(.minutes(2))) struct InterruptTests {
  @Test(arguments: ["ioapic", "/machine/q35/ioapic"]) func interceptedLineIsTold(_ path: String) throws {
    let kit = try QTestKit()
    let client = kit.client
    #expect(client.ask("irq_intercept_in \(path)") == "OK")
    #expect(client.ask("irq_intercept_in \(path)") == "OK")
    #expect(client.ask("irq_intercept_in pic") == "FAIL IRQ intercept already enabled")
    kit.startAHCI()
    kit.prepare(0, command: 0xec, byteCount: 512)
    try kit.run(1)
    // INTA# of device 31 is PIRQ A, input 16.
    #expect(client.interrupts == ["IRQ raise 16"])
    kit.setHBA(0x110, .max)
    kit.setHBA(8, .max)
    #expect(client.interrupts == ["IRQ raise 16", "IRQ lower 16"])
    kit.finish()
  }

  @Test func outputOfAFunctionIsTold() throws {
    let kit = try QTestKit()
    #expect(kit.client.ask("irq_intercept_out /machine/peripheral/ahci") == "OK")
    kit.startAHCI()
    kit.prepare(0, command: 0xec, byteCount: 512)
    try kit.run(1)
    kit.setHBA(0x110, .max)
    kit.setHBA(8, .max)
    #expect(kit.client.interrupts == ["IRQ raise 0", "IRQ lower 0"])
    kit.finish()
  }

  @Test func nothingIsToldUnasked() throws {
    let kit = try QTestKit()
    kit.startAHCI()
    kit.prepare(0, command: 0xec, byteCount: 512)
    try kit.run(1)
    #expect(kit.client.interrupts.isEmpty)
    kit.finish()
  }

  @Test func inputsCanBeDriven() throws {
    let kit = try QTestKit()
    let client = kit.client
    #expect(client.ask("irq_intercept_in nowhere") == "FAIL Unknown device")
    #expect(client.ask("irq_intercept_out nowhere") == "FAIL Unknown device")
    #expect(client.ask("irq_intercept_in pic") == "OK")
    #expect(client.ask("set_irq_in ioapic unnamed-gpio-in 4 1") == "OK")
    #expect(client.ask("set_irq_in ioapic unnamed-gpio-in 4 1") == "OK")
    #expect(client.ask("set_irq_in pic unnamed-gpio-in 4 0") == "OK")
    #expect(client.ask("set_irq_in pic unnamed-gpio-in 16 1") == "FAIL there is no input 16")
    #expect(client.ask("set_irq_in ioapic unnamed-gpio-in 16 1") == "OK")
    #expect(client.ask("set_irq_in nowhere unnamed-gpio-in 4 0") == "FAIL Unknown device")
    #expect(client.interrupts == ["IRQ raise 4", "IRQ lower 4"])
    kit.finish()
  }

  @Test func linesWithoutRoomAreToldByTheirLastLevel() throws {
    let kit = try QTestKit()
    let (last, room) = try kit.onLoop { () -> (Bool, [String]) in
      var told: [String] = []
      var hasRoom = false
      let interrupts = QTestInterrupts(machine: kit.machine)
      interrupts.tell = { line, level in
        if hasRoom { told.append("\(line) \(level)") }
        return hasRoom
      }
      let isNew = interrupts.intercept(.inputs(24))
      interrupts.setLine(3, asserted: true)
      interrupts.setLine(3, asserted: false)
      interrupts.setLine(5, asserted: true)
      hasRoom = true
      interrupts.roomCame()
      return (isNew, told)
    }
    #expect(last)
    #expect(room == ["5 true"])
    kit.finish()
  }

  @Test func messageReachesRAMRegistersAndNothingElse() throws {
    final class Register: RegisterBlock {
      var written: [String] = []
      override func write(offset: UInt64, width: Int, value: UInt64) { written.append("\(offset)/\(width)=\(value)") }
    }
    let register = Register()
    let kit = try QTestKit { machine in
      machine.lock.withLock { _ = machine.memorySpace.map(register, at: 0xd000_0000, byteCount: 0x1000) }
    }
    let interrupts = kit.machine.interrupts
    // From any thread, as here.
    interrupts.send(MSIMessage(address: 0x6000, data: 0xcafe_f00d))
    interrupts.send(MSIMessage(address: 0xfee0_0000, data: 0x41))
    interrupts.send(MSIMessage(address: 0xd000_0010, data: 7))
    interrupts.send(MSIMessage(address: 0xffff_ffff_ffff_fffe, data: 7))
    #expect(kit.client.ask("readl 0x6000") == "OK 0x00000000cafef00d")
    try kit.wait { register.written == ["16/4=7"] }
    kit.finish()
  }

  @Test func messagesThatCauseEachOtherLeaveTurnsToTheClient() throws {
    final class Echo: RegisterBlock {
      unowned(unsafe) let machine: Machine
      init(_ machine: Machine) { self.machine = machine }
      override func write(offset: UInt64, width: Int, value: UInt64) {
        for _ in 0..<100 { machine.interrupts.send(MSIMessage(address: 0xd000_0000, data: 1)) }
      }
    }
    var echo: Echo?
    let kit = try QTestKit { machine in
      let block = Echo(machine)
      machine.lock.withLock { _ = machine.memorySpace.map(block, at: 0xd000_0000, byteCount: 0x1000) }
      echo = block
    }
    #expect(kit.client.ask("writel 0xd0000000 1") == "OK")
    for _ in 0..<100 { #expect(kit.client.ask("endianness") == "OK little") }
    kit.finish()
    withExtendedLifetime(echo) {}
  }
}
