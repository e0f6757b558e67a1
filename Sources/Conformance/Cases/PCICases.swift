// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// Configuration space: the mechanism, identity, base address registers, capabilities.
enum PCICases {
  private static let ahci = PCIAddress(bus: 0, device: 31, function: 2)
  private static let virtio = PCIAddress(bus: 0, device: 4, function: 0)
  private static let decodeMemory: UInt16 = 2
  private static let decodeMemoryAndMaster: UInt16 = 6
  private static let abarOffset: UInt8 = 0x24

  private static func select(_ place: PCIAddress, _ offset: UInt8) -> UInt32 {
    0x8000_0000 | UInt32(place.bus) << 16 | UInt32(place.device) << 11 | UInt32(place.function) << 8 | UInt32(offset)
  }

  /// The capabilities of a function in list order: identifier and offset.
  static func capabilities(_ context: CaseContext, _ place: PCIAddress) -> [(identifier: UInt8, offset: UInt8)] {
    var found: [(UInt8, UInt8)] = []
    let configuration = PCIConfiguration(bus: context.bus)
    _ = configuration.findCapability(place) { identifier, offset in
      found.append((identifier, offset))
      return false
    }
    return found
  }

  /// The AHCI controller answers, so that what a case reads elsewhere or sees unchanged says something.
  private static func expectPresent(_ context: CaseContext) throws {
    let vendor = PCIConfiguration(bus: context.bus).read16(ahci, 0)
    try context.expect(vendor != 0 && vendor != 0xFFFF, "00:1f.2 has a vendor")
  }

  static let all: [ConformanceCase] = [
    ConformanceCase(
      "pci/mechanism-1-address-reads-back", "The configuration address register reads back what was written to it",
      "PCI 3.0 §3.2.2.3.2", .bare, shares: true
    ) { context in
      context.bus.out32(0xCF8, select(ahci, 0x24))
      try context.expect(context.bus.in32(0xCF8), select(ahci, 0x24), "port 0xcf8")
    },
    ConformanceCase(
      "pci/absent-function-reads-ones", "A function that is not there reads all ones, and writes to it do nothing",
      "PCI 3.0 §6.1", .bare, shares: true
    ) { context in
      let configuration = PCIConfiguration(bus: context.bus)
      let nobody = PCIAddress(bus: 0, device: 21, function: 5)
      configuration.write32(nobody, 4, 0x1234_5678)
      try context.expect(configuration.read32(nobody, 0), 0xFFFF_FFFF, "identifiers of 00:15.5")
      try context.expect(configuration.read16(nobody, 4), 0xFFFF, "command of 00:15.5")
      try context.expect(configuration.read8(nobody, 0x0E), 0xFF, "header type of 00:15.5")
      try expectPresent(context)
    },
    ConformanceCase(
      "pci/disabled-mechanism-ignores-data",
      "Without bit 31 of the address register the data port is no configuration access",
      "PCI 3.0 §3.2.2.3.2", .bare, shares: true
    ) { context in
      context.bus.out32(0xCF8, select(ahci, 0) & ~0x8000_0000)
      try context.expect(context.bus.in32(0xCFC), 0xFFFF_FFFF, "port 0xcfc with the mechanism off")
      try expectPresent(context)
    },
    ConformanceCase(
      "pci/byte-lanes-agree", "Bytes, words and double words of configuration space show the same registers",
      "PCI 3.0 §3.2.2.3.2", .bare, shares: true
    ) { context in
      try expectPresent(context)
      let configuration = PCIConfiguration(bus: context.bus)
      for offset: UInt8 in [0x00, 0x08, 0x2C] {
        let whole = configuration.read32(ahci, offset)
        for index: UInt8 in 0..<4 {
          let byte = configuration.read8(ahci, offset + index)
          try context.expect(byte, UInt8(truncatingIfNeeded: whole >> (8 * UInt32(index))), "byte \(offset + index)")
        }
        try context.expect(configuration.read16(ahci, offset + 2), UInt16(whole >> 16), "word \(offset + 2)")
      }
    },
    ConformanceCase(
      "pci/identity-is-read-only", "Vendor, device, class and header type keep their values whatever is written",
      "PCI 3.0 §6.2.1", .bare, shares: true
    ) { context in
      try expectPresent(context)
      let configuration = PCIConfiguration(bus: context.bus)
      for offset: UInt8 in [0x00, 0x08, 0x2C] {
        let before = configuration.read32(ahci, offset)
        configuration.write32(ahci, offset, ~before)
        try context.expect(configuration.read32(ahci, offset), before, "register \(offset) of 00:1f.2")
      }
      let type = configuration.read8(ahci, 0x0E)
      configuration.write8(ahci, 0x0E, ~type)
      try context.expect(configuration.read8(ahci, 0x0E), type, "header type of 00:1f.2")
    },
    ConformanceCase(
      "pci/ahci-class", "The AHCI controller has the class of SATA in AHCI mode", "AHCI 1.3.1 §2.1.5", .bare,
      shares: true
    ) { context in
      let configuration = PCIConfiguration(bus: context.bus)
      try context.expect(configuration.read32(ahci, 0x08) >> 8, 0x01_06_01, "class code of 00:1f.2")
    },
    ConformanceCase(
      "pci/command-bits-are-kept", "I/O, memory and bus master enable can be set and cleared",
      "PCI 3.0 §6.2.2; AHCI 1.3.1 §2.1.2", .bare
    ) { context in
      let configuration = PCIConfiguration(bus: context.bus)
      try context.expect(configuration.read16(ahci, 4), mask: 7, 0, "command after power on")
      configuration.write16(ahci, 4, 7)
      try context.expect(configuration.read16(ahci, 4), mask: 7, 7, "command with all set")
      configuration.write16(ahci, 4, 0)
      try context.expect(configuration.read16(ahci, 4), mask: 7, 0, "command with all clear")
    },
    ConformanceCase(
      "pci/virtio-needs-bus-master", "A virtio function leaves guest memory alone while it is not bus master",
      "PCI 3.0 §6.2.2", .virtio
    ) { context in
      let disk = try VirtioUnderTest(started: context)
      let configuration = context.topology.configuration
      configuration.write16(virtio, 4, decodeMemory)
      let buffer = try context.allocate(512)
      let status = try disk.makeStatus()
      disk.writeChain([
        VirtioUnderTest.Segment(address: try disk.makeHeader(type: VirtioBlockType.read, sector: 3), byteCount: 16),
        VirtioUnderTest.Segment(address: buffer, byteCount: 512, isWritten: true),
        VirtioUnderTest.Segment(address: status, byteCount: 1, isWritten: true),
      ])
      disk.publish(0)
      disk.kick()
      try context.expectStays("nothing is used while the function is no bus master") { !disk.hasUsed }
      try context.expect(context.bus.ramRead8(status), VirtioBlockStatus.unwritten, "status byte")
      try context.expect(context.bus.load(buffer, count: 512), [UInt8](repeating: 0, count: 512), "data")
      configuration.write16(virtio, 4, decodeMemoryAndMaster)
      try VirtioUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "pci/ahci-needs-bus-master",
      "An AHCI controller moves no data and keeps commands issued while it is not bus master",
      "AHCI 1.3.1 §2.1.2; PCI 3.0 §6.2.2", .ahci
    ) { context in
      let hba = try HBAUnderTest(started: context)
      let configuration = context.topology.configuration
      configuration.write16(ahci, 4, decodeMemory)
      let buffer = try context.allocate(512)
      hba.issue(ATACommand(ATAOpcode.readDMAExt, lba: 3, count: 1), AHCIBuffer(address: buffer, byteCount: 512))
      try context.expectStays("the command stays issued while the controller is no bus master") {
        hba.engine.read(AHCIPortRegister.issue) == 1
      }
      try context.expect(context.bus.load(buffer, count: 512), [UInt8](repeating: 0, count: 512), "data")
      configuration.write16(ahci, 4, decodeMemoryAndMaster)
      try HBAUnderTest(started: context).checkAlive()
    },
    ConformanceCase(
      "pci/bar-sizing",
      "ABAR gives its size when all ones are written: a power of two of 4 KiB at least, 32 bits, not prefetchable",
      "PCI 3.0 §6.2.5.1; AHCI 1.3.1 §2.1.11", .bare
    ) { context in
      let configuration = PCIConfiguration(bus: context.bus)
      try context.expect(configuration.read32(ahci, abarOffset), 0, "ABAR after power on")
      configuration.write32(ahci, abarOffset, 0xFFFF_FFFF)
      let mask = configuration.read32(ahci, abarOffset)
      try context.expect(mask, mask: 0xF, 0, "type bits of ABAR")
      let byteCount = ~mask &+ 1
      try context.expect(
        byteCount >= 1024 && byteCount & (byteCount - 1) == 0, "ABAR's size \(byteCount) is a power of two")
    },
    ConformanceCase(
      "pci/bar-keeps-address", "A base address register keeps the address bits above its size, and no others",
      "PCI 3.0 §6.2.5.1", .bare
    ) { context in
      let configuration = PCIConfiguration(bus: context.bus)
      configuration.write32(ahci, abarOffset, 0xFFFF_FFFF)
      let mask = configuration.read32(ahci, abarOffset) & ~0xF
      try context.expect(mask != 0, "ABAR keeps address bits")
      configuration.write32(ahci, abarOffset, 0xFEBF_EFFF)
      try context.expect(configuration.read32(ahci, abarOffset), 0xFEBF_EFFF & mask, "ABAR")
    },
    ConformanceCase(
      "pci/memory-decoding-follows-command", "Registers answer at ABAR only while memory decoding is on",
      "PCI 3.0 §6.2.2", .bare
    ) { context in
      let configuration = PCIConfiguration(bus: context.bus)
      let base: UInt64 = 0xE000_0000
      configuration.write32(ahci, abarOffset, UInt32(base))
      try context.expect(context.bus.mmioRead32(base + 0x10) == 0, "nothing answers with decoding off")
      configuration.write16(ahci, 4, decodeMemoryAndMaster)
      let version = context.bus.mmioRead32(base + 0x10)
      try context.expect(version != 0 && version != 0xFFFF_FFFF, "the version register answers with decoding on")
      configuration.write16(ahci, 4, 0)
      try context.expect(context.bus.mmioRead32(base + 0x10) == 0, "nothing answers with decoding off again")
    },
    ConformanceCase(
      "pci/bar-moves-while-decoding",
      "A base address register may be moved while decoding is on; the old place is empty then",
      "PCI 3.0 §6.2.5", .bare
    ) { context in
      let configuration = PCIConfiguration(bus: context.bus)
      let (old, new): (UInt64, UInt64) = (0xE000_0000, 0xE100_0000)
      configuration.write32(ahci, abarOffset, UInt32(old))
      configuration.write16(ahci, 4, decodeMemoryAndMaster)
      let version = context.bus.mmioRead32(old + 0x10)
      try context.expect(version != 0 && version != 0xFFFF_FFFF, "the version register answers at the old place")
      configuration.write32(ahci, abarOffset, UInt32(new))
      try context.expect(context.bus.mmioRead32(new + 0x10), version, "version register at the new place")
      try context.expect(context.bus.mmioRead32(old + 0x10), 0, "the old place")
    },
    ConformanceCase(
      "pci/capability-list-is-sound", "The capability list stays in configuration space, aligned, without a loop",
      "PCI 3.0 §6.7", .virtio, shares: true
    ) { context in
      let configuration = PCIConfiguration(bus: context.bus)
      for place in [ahci, virtio] {
        try context.expect(configuration.read16(place, 6), mask: 0x10, 0x10, "status: there are capabilities")
        var offset = configuration.read8(place, 0x34)
        var seen: Set<UInt8> = []
        while offset != 0 {
          try context.expect(offset >= 0x40 && offset & 3 == 0, "offset \(offset) is aligned and above the header")
          try context.expect(seen.insert(offset).inserted, "offset \(offset) comes once")
          offset = configuration.read8(place, offset + 1)
        }
      }
    },
    ConformanceCase(
      "pci/ahci-has-msi-and-sata", "The AHCI controller has MSI, disabled at power on, and the SATA capability",
      "AHCI 1.3.1 §2.3, §2.4", .bare
    ) { context in
      let configuration = PCIConfiguration(bus: context.bus)
      let list = capabilities(context, ahci)
      guard let msi = list.first(where: { $0.identifier == 0x05 }) else {
        throw ConformanceFailure("expected an MSI capability; saw \(list)")
      }
      try context.expect(configuration.read16(ahci, msi.offset + 2), mask: 0x71, 0, "message control after power on")
      guard let sata = list.first(where: { $0.identifier == 0x12 }) else {
        throw ConformanceFailure("expected a SATA capability; saw \(list)")
      }
      try context.expect(configuration.read16(ahci, sata.offset + 2), 0x0010, "revision of the SATA capability")
      let place = configuration.read32(ahci, sata.offset + 4) & 0xF
      try context.expect((4...9).contains(place) || place == 0xF, "the index/data pair is in a base address register")
    },
    ConformanceCase(
      "pci/msi-keeps-message", "The MSI capability keeps a message address aligned to 4 and 16 bits of data",
      "PCI 3.0 §6.8.1", .bare
    ) { context in
      let configuration = PCIConfiguration(bus: context.bus)
      guard let msi = MSICapability(configuration: configuration, function: ahci) else { try context.skip("no MSI") }
      let message = MessageInterrupt(number: 0, address: 0x0012_3454, data: 0x4321)
      try context.expect(msi.program(message), "the message can be programmed")
      msi.enable()
      try context.expect(msi.holds(message), "the capability reads back enabled with the message")
      msi.disable()
      try context.expect(!msi.holds(message), "the capability reads back disabled")
    },
    ConformanceCase(
      "pci/msix-entries-start-masked", "Every MSI-X entry is masked at power on, and MSI-X is off",
      "PCI 3.0 §6.8.2.3, §6.8.2.9", .virtio
    ) { context in
      let entry = try context.entry(device: 4, function: 0)
      let configuration = context.topology.configuration
      configuration.enable(virtio)
      guard let capability = capabilities(context, virtio).first(where: { $0.identifier == 0x11 }) else {
        throw ConformanceFailure("expected an MSI-X capability on 00:04.0; saw none")
      }
      let control = configuration.read16(virtio, capability.offset + 2)
      try context.expect(control, mask: 0xC000, 0, "message control after power on")
      let place = configuration.read32(virtio, capability.offset + 4)
      guard let register = entry.baseAddresses.first(where: { $0.index == Int(place & 7) }) else {
        throw ConformanceFailure("expected the table in a base address register; saw BIR \(place & 7)")
      }
      for index in 0...UInt64(control & 0x7FF) {
        let vector = context.bus.mmioRead32(register.address + UInt64(place & ~7) + 16 * index + 12)
        try context.expect(vector, mask: 1, 1, "vector control of entry \(index)")
      }
    },
    ConformanceCase(
      "pci/msix-pending-write-is-ignored", "A write to the MSI-X pending bits does nothing",
      "PCI 3.0 §6.8.2.10; known failure 61 (CVE-2015-7549)", .virtio
    ) { context in
      let entry = try context.entry(device: 4, function: 0)
      let configuration = context.topology.configuration
      configuration.enable(virtio)
      guard let capability = capabilities(context, virtio).first(where: { $0.identifier == 0x11 }) else {
        try context.skip("no MSI-X")
      }
      let place = configuration.read32(virtio, capability.offset + 8)
      guard let register = entry.baseAddresses.first(where: { $0.index == Int(place & 7) }) else {
        throw ConformanceFailure("expected the pending bits in a base address register; saw BIR \(place & 7)")
      }
      let address = register.address + UInt64(place & ~7)
      context.bus.mmioWrite32(address, 0xFFFF_FFFF)
      context.bus.mmioWrite32(address + 4, 0xFFFF_FFFF)
      try context.expect(context.bus.mmioRead32(address), 0, "pending bits")
    },
  ]
}
