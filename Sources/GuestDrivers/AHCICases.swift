// SPDX-License-Identifier: Apache-2.0

/// Cases about an AHCI host bus adapter: registers after a reset, ports, interrupts; and the way to the cases of devices.
extension TestRun {
  /// Every case of one HBA and of what is attached to it.
  func ahciCases(_ topology: PCITopology<B>, _ entry: PCITopology<B>.Entry) {
    report.disk = nil
    let controller: AHCIController<B>
    do {
      controller = try AHCIController(topology: topology, entry: entry)
    } catch {
      report.fail("ahci: the function has its registers in BAR 5 (AHCI 2.1.11)", error)
      return
    }
    var isReset = false
    attempt("ahci: an HBA reset ends, and AHCI is enabled after it (AHCI 10.4.3)") { () throws(DriverError) in
      try controller.reset()
      isReset = true
      return true
    }
    guard isReset else {
      return
    }
    globalRegisterCases(controller)
    idlePortsCase(controller)
    var isStarted = false
    attempt("ahci: the HBA starts, and every port has its engines (AHCI 10.1.2)") { () throws(DriverError) in
      try controller.start(waitMode: options.waitMode)
      isStarted = true
      return !controller.ports.isEmpty
    }
    guard isStarted else {
      return
    }
    list(controller)
    if let interrupt = controller.interrupt, let msi = controller.msi {
      report.check(msi.holds(interrupt), "ahci: the MSI capability reads back what was written to it (PCI 6.8.1)")
    } else {
      report.skip(
        "ahci: the MSI capability reads back what was written to it (PCI 6.8.1)",
        options.waitMode == .poll ? "polled" : "the function has no MSI")
    }
    linksCase(controller)
    deviceCases(controller)
  }

  private func deviceCases(_ controller: AHCIController<B>) {
    for port in controller.ports where port.kind == .ata || port.kind == .atapi {
      guard !isStopping, diskCount < TestRun.disksMax else {
        return
      }
      report.disk = UInt64(diskCount)
      diskCount += 1
      if port.kind == .ata {
        ataCases(controller, port, number: diskCount - 1)
      } else {
        atapiCases(port, number: diskCount - 1)
      }
      report.disk = nil
    }
  }

  private func list(_ controller: AHCIController<B>) {
    report.comment { console in
      console.text("ahci capabilities 0x")
      console.hexadecimal(UInt64(controller.capabilities), digits: 8)
      console.text(" ports")
      for port in controller.ports {
        console.text(" ")
        console.decimal(UInt64(port.number))
        switch port.kind {
        case .none: console.text("-")
        case .ata: console.text(":ata")
        case .atapi: console.text(":atapi")
        case .other: console.text(":?")
        }
      }
      console.text(controller.interrupt == nil ? " polled" : " by MSI")
    }
  }

  private func globalRegisterCases(_ controller: AHCIController<B>) {
    let capabilities = controller.capabilities
    let control = controller.read(AHCIRegister.globalControl)
    report.check(
      control & AHCIControl.interruptEnable == 0 && controller.read(AHCIRegister.interruptStatus) == 0,
      "ahci: no interrupt is enabled or pending after a reset (AHCI 3.1.2, 3.1.3)")
    let implemented = controller.read(AHCIRegister.portsImplemented)
    report.check(
      implemented != 0 && implemented.nonzeroBitCount <= Int(capabilities & AHCIControl.portCountMask) + 1,
      "ahci: there are ports, and no more than CAP.NP says (AHCI 3.1.1, 3.1.4)")
    let version = controller.read(AHCIRegister.version)
    let versions: [UInt32] = [0x0000_0905, 0x0001_0000, 0x0001_0100, 0x0001_0200, 0x0001_0300, 0x0001_0301]
    report.check(versions.contains(version), "ahci: the version is one that there is (AHCI 3.1.5)")
  }

  /// After a reset no port has an engine that runs, a command, or an interrupt enabled.
  private func idlePortsCase(_ controller: AHCIController<B>) {
    let implemented = controller.read(AHCIRegister.portsImplemented)
    var areIdle = true
    for number in 0..<AHCIController<B>.portsMax where implemented >> UInt32(number) & 1 != 0 {
      let base = AHCIController<B>.portOffset(number)
      guard base + AHCIRegister.portBytes <= controller.registersByteCount else {
        areIdle = false
        break
      }
      let engines =
        AHCIPortCommand.start | AHCIPortCommand.listRuns | AHCIPortCommand.receive | AHCIPortCommand.receiveRuns
      areIdle =
        controller.read(base + AHCIPortRegister.command) & engines == 0
        && controller.read(base + AHCIPortRegister.interruptEnable) == 0
        && controller.read(base + AHCIPortRegister.issue) == 0
        && controller.read(base + AHCIPortRegister.active) == 0
        && controller.read(base + AHCIPortRegister.linkControl) & AHCILink.detectionMask == 0 && areIdle
    }
    report.check(areIdle, "ahci: every port is idle after a reset (AHCI 3.3.6, 3.3.7, 3.3.11, 3.3.13, 3.3.14)")
  }

  /// A port with a device shows a link and a signature, and answers; one without shows no link.
  private func linksCase(_ controller: AHCIController<B>) {
    let busy = AHCITaskFile.busy | AHCITaskFile.dataRequest
    var areRight = true
    for port in controller.ports {
      let link = port.engine.read(AHCIPortRegister.linkStatus)
      if port.kind == .none {
        areRight = link & AHCILink.detectionMask != AHCILink.present && areRight
        continue
      }
      let speed = link >> AHCILink.speedShift & 0xF
      areRight =
        link & AHCILink.detectionMask == AHCILink.present && link >> AHCILink.powerShift & 0xF == 1 && speed >= 1
        && speed <= 3 && port.engine.read(AHCIPortRegister.taskFile) & busy == 0 && port.kind != .other
        && port.identity != nil && areRight
    }
    report.check(areRight, "ahci: ports with a device show link and signature, others none (AHCI 3.3.8 to 3.3.10)")
  }
}
