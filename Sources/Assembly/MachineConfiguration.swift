// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Platform

/// Which accelerator a user wants.
public enum AcceleratorChoice: String, CaseIterable, Sendable {
  /// KVM where it works, otherwise hosted.
  case auto
  /// The host's KVM.
  case kvm
  /// The guest program compiled into this process.
  case hosted
}

/// What a whole machine is made of.
public struct MachineConfiguration: Sendable {
  /// Guest RAM in bytes.
  public var memoryBytes: UInt64 = 256 << 20
  /// Virtual processors.
  public var processorCount = 1
  /// The disks, in PCI order.
  public var drives: [DriveConfiguration] = []
  /// The AHCI controller's name.
  public var controllerName = "ahci"
  /// The guest may eject the AHCI controller, as it may a card.
  public var hasRemovableController = false
  /// PCI slot of the first virtio disk that names none, 1 to 30; slots below are the host bridge's and left free as those of
  /// QEMU's display and network adapters on q35.
  public var firstDiskSlot = 3
  /// Each virtio disk gets a loop and thread of its own.
  public var usesIOThreads = false
  /// How every loop watches its descriptors.
  public var monitor = LoopMonitor.auto
  /// Longest time in nanoseconds that an I/O thread's loop polls before it sleeps; 0 for never. The main loop never
  /// polls, since it would keep the machine lock from the vCPUs meanwhile.
  public var pollNsMax: UInt64 = 0
  /// What the real-time clock shows as the machine begins.
  public var clockBase = ClockBase.utc

  /// The port to which the guest writes to end the machine; nil where there is none.
  public var debugExitPort: UInt16? = DebugExit.standardPort
  /// When the main loop is woken for what a vCPU has queued.
  public var wakePolicy = WakePolicy.elided
  /// Who enters the kernel for what a vCPU queues on the main loop's ring.
  public var submission = SubmissionThread.loop
  /// Nanoseconds between the wakeups that the main loop has by itself; by default what a PC's real-time clock gives it.
  public var heartbeatNs = Heartbeat.realTimeClockNs
  /// Wakeups a second that other work of a busy machine would give the main loop; 0 for none.
  public var activityHz: UInt64 = 0
  /// The main loop has the refreshes of a display that somebody looks at.
  public var hasDisplay = false

  /// Whether a line on standard error tells the user that an error has stopped the machine, and how it goes on.
  public var announcesStops = true

  /// A machine without disks.
  public init() {}

  /// More virtual processors than this have no use here.
  public static let processorsMax = 64
}
