// SPDX-License-Identifier: Apache-2.0

extension ConformanceSuites {
  /// Where others are known to differ. What they do was seen on Debian 12's QEMU 7.2; the case says
  /// which section it is held against.
  public static let differences: [KnownDifference] = [
    KnownDifference(
      "ahci/list-address-low-bits", .qemu, "QEMU keeps the reserved low bits of PxCLB and PxFB as they are written"),
    KnownDifference(
      "ahci/error-holds-until-restart", .qemu,
      "QEMU 7.2 goes on with other slots after an error; later versions may not (its series of September 2023)"),
    KnownDifference(
      "ahci/comreset-signature", .qemu, "QEMU does not report the COMINIT of a reset in PxSERR.DIAG.X and PxIS.PCS"),
    KnownDifference(
      "ahci/queued-error-log", .qemu,
      "QEMU offers queued commands without general purpose logging, so there is no log 10h"),
    KnownDifference(
      "ahci/no-regions", .qemu, "QEMU 7.2 ends by an assertion in ide_dma_cb; known failure 39 names the same one"),
    KnownDifference("ata/verify", .qemu, "QEMU's READ VERIFY looks at nothing, so it succeeds past the end"),
    KnownDifference("ata/diagnostic", .qemu, "QEMU never ends EXECUTE DEVICE DIAGNOSTIC behind AHCI"),
    KnownDifference("atapi/device-reset", .qemu, "QEMU never ends DEVICE RESET behind AHCI"),
    KnownDifference(
      "atapi/inquiry", .qemu, "QEMU's INQUIRY has the response data format 1 of SFF-8020i; MMC-5 §6.8 wants 2"),
    KnownDifference(
      "atapi/sense-is-reported-once", .qemu, "QEMU reports the same sense data again at the next REQUEST SENSE"),
    KnownDifference(
      "virtio/features-not-offered", .qemu,
      "QEMU lets FEATURES_OK stick although a feature was taken that it did not offer"),
    KnownDifference(
      "virtio/early-notification", .qemu, "QEMU serves a queue as soon as it is enabled, before DRIVER_OK"),
  ]
}
