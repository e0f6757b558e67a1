// SPDX-License-Identifier: Apache-2.0

/// The cases of all subjects.
public enum ConformanceSuites {
  /// All cases, by subject.
  public static let all: [ConformanceCase] = pci + ahci + ata + atapi + virtio + loop

  /// PCI, as far as disks need it.
  public static let pci: [ConformanceCase] = PCICases.all

  /// The AHCI controller: registers, engines, commands.
  public static let ahci: [ConformanceCase] =
    AHCIRegisterCases.all + AHCIEngineCases.all + AHCICommandCases.all

  /// ATA disks.
  public static let ata: [ConformanceCase] = ATADataCases.all + ATACommandCases.all

  /// CD-ROM drives.
  public static let atapi: [ConformanceCase] = ATAPICases.all

  /// virtio-blk: the PCI transport, queues, requests, and rings that are wrong.
  public static let virtio: [ConformanceCase] =
    VirtioTransportCases.all + VirtioNegotiationCases.all + VirtioWindowCases.all + VirtioLegacyCases.all
    + VirtioQueueCases.all + VirtioNotificationCases.all + VirtioRequestCases.all + VirtioOutcomeCases.all
    + VirtioRaceCases.all + VirtioMMIOCases.all + VirtioHostileCases.all

  /// What a guest sees of the machine's event loop: nothing is forgotten while nobody touches the machine.
  public static let loop: [ConformanceCase] = LoopCases.all
}
