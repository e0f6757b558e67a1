// SPDX-License-Identifier: Apache-2.0

/// The cases of all subjects.
public enum ConformanceSuites {
  /// All cases, by subject.
  public static let all: [ConformanceCase] = pci

  /// PCI, as far as disks need it.
  public static let pci: [ConformanceCase] = PCICases.all

  /// Where others are known to differ.
  public static let differences: [KnownDifference] = []
}
