// SPDX-License-Identifier: Apache-2.0

/// What can go wrong between a driver and its device.
public enum DriverError: Error, Equatable {
  /// The carrier is going away; the program unwinds.
  case machineStopped
  /// The device did not answer in `waitTicksMax`.
  case timedOut
  /// The carrier has no more RAM or interrupts.
  case outOfResources
  /// Registers that a driver cannot do without are missing, or lie outside the function's memory.
  case missingCapability
  /// A virtio device does not offer VIRTIO_F_VERSION_1.
  case notModern
  /// A virtio device cleared FEATURES_OK.
  case featuresRefused
  /// A virtqueue is missing, has a size that is not a power of two, or did not become enabled.
  case queueRefused
  /// The device did not take an MSI-X vector.
  case vectorRefused
  /// The device set DEVICE_NEEDS_RESET, or put something impossible into a used ring.
  case deviceBroken
  /// An AHCI port shows no device, or one that stays busy after a reset.
  case noDevice
  /// A reset does not end, or a port's engines do not start or stop.
  case stuck
}

/// How long anything is waited for before the device counts as silent, in `Bus.ticks`: 6 to 600 seconds.
public let waitTicksMax: UInt64 = 60_000_000_000

/// How a queue learns of completions.
public enum WaitMode: Sendable {
  /// It looks again and again: at the used ring, or at the port's registers.
  case poll
  /// It halts until a message (MSI or MSI-X) arrives.
  case interrupt
}
