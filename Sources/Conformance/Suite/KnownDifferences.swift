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
      "atapi/inquiry", .qemu, "QEMU's INQUIRY has the response data format 1 of SFF-8020i; MMC-5 §6.9 wants 2"),
    KnownDifference(
      "atapi/sense-is-reported-once", .qemu, "QEMU reports the same sense data again at the next REQUEST SENSE"),
    KnownDifference(
      "virtio/features-not-offered", .qemu,
      "QEMU lets FEATURES_OK stick although a feature was taken that it did not offer"),
    KnownDifference(
      "virtio/configuration-padding", .qemu,
      "QEMU's device configuration ends before unused1, and reads as all ones from there on"),
    KnownDifference(
      "virtio/no-flush-means-writethrough", .qemu,
      "QEMU takes it that who chooses the cache's mode can flush, and leaves writeback as it is"),
    KnownDifference(
      "virtio/generation-of-many-changes", .qemu,
      "QEMU counts every change in 8 bits, so 256 of them that nobody looks at go unseen"),
    KnownDifference(
      "virtio/queue-size-stays-a-power-of-two", .qemu, "QEMU keeps any size up to 1024 as it was written"),
    KnownDifference(
      "virtio/indirect-after-descriptors", .qemu,
      "QEMU looks for an indirect table at the head of a chain only: it takes this one for data, and breaks"),
    KnownDifference(
      "virtio/used-length-of-failures", .qemu,
      "QEMU 7.2 reports the bytes that a request could have written, also where it fails"),
    KnownDifference(
      "virtio/mmio-features-beyond-are-zero", .qemu, "QEMU takes every word but the first for the second"),
    KnownDifference(
      "virtio/mmio-queue-taken-back", .qemu, "QEMU clears QueueReady and goes on serving the queue"),
    KnownDifference(
      "virtio/early-notification", .qemu, "QEMU serves a queue as soon as it is enabled, before DRIVER_OK"),
  ]
}
