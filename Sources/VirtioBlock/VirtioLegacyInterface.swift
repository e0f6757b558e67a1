// SPDX-License-Identifier: Apache-2.0
// What drivers from before version 1 do differently, whatever transport their registers are on (virtio 1.3 §2.7.2, §3.1.2).
extension VirtioBlockDevice {
  /// Features of a legacy driver are the low 32; version 1 is not among them (§6.3).
  var legacyFeatures: UInt64 { offeredFeatures & 0xffff_ffff | Feature.anyLayout }

  /// There is no way to refuse: what was not offered is left out. The first use ends the negotiation (§3.1.2).
  func acceptLegacyFeatures(_ features: UInt64) {
    if !hasStarted { driverFeatures = features & legacyFeatures }
  }

  /// The three areas of a legacy queue follow each other (§2.7.2): the used ring begins at a multiple of `alignBytes`.
  func placeLegacyQueue(_ index: Int, at descriptors: UInt64, alignBytes: UInt64) {
    guard !queueRegisters[index].isEnabled else { return }
    let count = UInt64(queueRegisters[index].size)
    let available = descriptors + 16 * count
    let end = available + 6 + 2 * count
    queueRegisters[index].descriptors = descriptors
    queueRegisters[index].available = available
    queueRegisters[index].used = (end + alignBytes - 1) / alignBytes * alignBytes
    enableQueue(index)
  }

  /// Rings a queue. A driver may use the device before it sets DRIVER_OK (§3.1.2), so this starts it too.
  func notifyLegacyQueue(_ queue: Int) {
    guard queue < queues.count else { return }
    if !hasStarted {
      guard queueRegisters[queue].isEnabled, !isBroken else { return }
      start()
    }
    queues[queue].event.signal()
  }

  /// Drivers may write the configuration before they negotiate (§3.1.2), so the writeback field needs no feature here.
  func writeLegacyConfiguration(_ offset: UInt64, _ width: Int, _ value: UInt64) {
    guard offset == VirtioBlockDevice.writebackOffset, width == 1 else { return }
    backend.writeCacheEnabled = value & 1 != 0
  }
}
