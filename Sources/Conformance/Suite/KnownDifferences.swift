// SPDX-License-Identifier: Apache-2.0

extension ConformanceSuites {
  /// Where others are known to differ. Each was looked up in the specification before it came here.
  public static let differences: [KnownDifference] = [
    KnownDifference(
      "ahci/list-address-low-bits", .qemu, "QEMU keeps the reserved low bits of PxCLB and PxFB as they are written"),
    KnownDifference(
      "ahci/error-holds-until-restart", .qemu,
      "QEMU 7.2 goes on with other slots after an error; it was changed in 2023 (8.2)"),
    KnownDifference(
      "ahci/comreset-signature", .qemu, "QEMU does not report the COMINIT of a reset in PxSERR.DIAG.X and PxIS.PCS"),
    KnownDifference(
      "ahci/queued-error-log", .qemu,
      "QEMU offers queued commands without general purpose logging, so there is no log 10h"),
    KnownDifference(
      "ahci/no-regions", .qemu, "QEMU ends by an assertion in ide_dma_cb (CVE-2019-20175, gitlab issue 2777)"),
    KnownDifference("ata/verify", .qemu, "QEMU's READ VERIFY looks at nothing, so it succeeds past the end"),
    KnownDifference("ata/diagnostic", .qemu, "QEMU never ends EXECUTE DEVICE DIAGNOSTIC behind AHCI"),
    KnownDifference("atapi/device-reset", .qemu, "QEMU never ends DEVICE RESET behind AHCI"),
    KnownDifference(
      "atapi/inquiry", .qemu, "QEMU's INQUIRY has the response data format 1 of SFF-8020i; MMC-5 §6.8 wants 2"),
    KnownDifference(
      "atapi/sense-is-reported-once", .qemu, "QEMU keeps sense data after REQUEST SENSE until another command succeeds"),
    KnownDifference(
      "virtio/features-not-offered", .qemu, "QEMU drops features that it did not offer and accepts the rest"),
    KnownDifference(
      "virtio/early-notification", .qemu, "QEMU serves a queue as soon as it is enabled, before DRIVER_OK"),
  ]
}
