// SPDX-License-Identifier: Apache-2.0

/// The cases of all subjects.
public enum ConformanceSuites {
  /// All cases, by subject.
  public static let all: [ConformanceCase] = pci + ahci + ata

  /// PCI, as far as disks need it.
  public static let pci: [ConformanceCase] = PCICases.all

  /// The AHCI controller: registers, engines, commands.
  public static let ahci: [ConformanceCase] =
    AHCIRegisterCases.all + AHCIEngineCases.all + AHCICommandCases.all

  /// ATA disks.
  public static let ata: [ConformanceCase] = ATADataCases.all + ATACommandCases.all

  /// Where others are known to differ.
  public static let differences: [KnownDifference] = []
}
