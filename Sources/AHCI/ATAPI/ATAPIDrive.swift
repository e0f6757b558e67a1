// SPDX-License-Identifier: Apache-2.0
import Block

/// A SATA CD-ROM drive (ACS-3 PACKET feature set, MMC-6) whose disc is a backend of the block layer, or none.
public final class ATAPIDrive: SATADevice {
  private var disc: BlockBackend?

  /// Makes a drive with a disc in it, or an empty one; the backend must be on the machine's main loop.
  public init(backend: BlockBackend?) {
    disc = backend
    super.init()
  }

  override var signature: UInt32 { 0xeb14_0101 }
  override var backend: BlockBackend? { disc }
}
