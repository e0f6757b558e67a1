// SPDX-License-Identifier: Apache-2.0

/// Cases about the machine: serial port, PCI.
extension TestRun {
  /// The listing of functions ends after this many lines.
  static var listedFunctionsMax: Int { 16 }
  /// This many ECAM words of each function are compared.
  static var ecamWords: UInt8 { 4 }

  /// The serial port works with its interrupts off.
  func serialCases() {
    let console = report.console
    let base = console.base
    typealias Register = SerialConsole<B>.Register
    bus.out8(base + Register.scratch, 0x5A)
    let isThere = bus.in8(base + Register.scratch) == 0x5A
    report.check(isThere, "serial: the scratch register keeps a value")
    let enabled = bus.in8(base + Register.interruptEnable)
    let identification = bus.in8(base + Register.interruptIdentification)
    report.check(enabled == 0 && identification & 1 == 1, "serial: no interrupt is pending with all of them off")
  }

  /// Functions are found, ECAM shows what mechanism 1 shows, and everything that decodes has an address.
  func pciCases(_ topology: PCITopology<B>) {
    report.check(!topology.entries.isEmpty, "pci: functions answer configuration mechanism 1")
    for entry in topology.entries.prefix(TestRun.listedFunctionsMax) {
      list(entry)
    }
    if let ecam = topology.ecam {
      report.check(ecamAgrees(topology, ecam.base, ecam.byteCount), "pci: ECAM shows what mechanism 1 shows")
    } else {
      report.skip("pci: ECAM shows what mechanism 1 shows", "no host bridge says where ECAM is")
    }
    report.comment { console in
      console.text("pci: base addresses assigned here: ")
      console.decimal(UInt64(topology.assignedCount))
    }
    report.check(topology.unassignedCount == 0 && !overlaps(topology), "pci: every base address has a place of its own")
  }

  private func list(_ entry: PCITopology<B>.Entry) {
    report.comment { console in
      let function = entry.function
      console.text("pci ")
      console.hexadecimal(UInt64(function.address.bus), digits: 2)
      console.text(":")
      console.hexadecimal(UInt64(function.address.device), digits: 2)
      console.text(".")
      console.decimal(UInt64(function.address.function))
      console.text(" ")
      console.hexadecimal(UInt64(function.vendor), digits: 4)
      console.text(":")
      console.hexadecimal(UInt64(function.device), digits: 4)
      console.text(" class ")
      console.hexadecimal(UInt64(function.classCode), digits: 4)
      for register in entry.baseAddresses {
        console.text(register.isMemory ? " mem " : " io ")
        console.hexadecimal(register.address)
        console.text("+")
        console.hexadecimal(register.byteCount)
      }
    }
  }

  private func ecamAgrees(_ topology: PCITopology<B>, _ base: UInt64, _ byteCount: UInt64) -> Bool {
    for entry in topology.entries {
      let address = entry.function.address
      guard address.ecamOffset + 4096 <= byteCount, base + byteCount <= 1 << 32 else {
        continue
      }
      for word in 0..<TestRun.ecamWords {
        let offset = word * 4
        let direct = topology.configuration.read32(address, offset)
        if bus.mmioRead32(base + address.ecamOffset + UInt64(offset)) != direct {
          return false
        }
      }
    }
    return true
  }

  /// Whether two memory registers claim the same address.
  private func overlaps(_ topology: PCITopology<B>) -> Bool {
    var ranges: [Range<UInt64>] = []
    for entry in topology.entries {
      for register in entry.baseAddresses where register.isMemory {
        let range = register.address..<(register.address + register.byteCount)
        for other in ranges where other.overlaps(range) {
          return true
        }
        ranges.append(range)
      }
    }
    return false
  }
}
