// SPDX-License-Identifier: Apache-2.0
import Glibc

/// The host's end of something that moves characters: a monitor's client, the serial port's reader.
public struct CharacterDevice: Equatable, Sendable {
  /// Its name.
  public var label: String
  /// Where it leads, in QEMU's words.
  public var filename: String
  /// Whether something of the machine uses it.
  public var isInUse: Bool

  /// Describes one.
  public init(label: String, filename: String, isInUse: Bool) {
    self.label = label
    self.filename = filename
    self.isInUse = isInUse
  }
}

/// How a monitor presents itself.
public struct MonitorSettings: Sendable {
  /// Which QEMU's replies a client expects, where they differ.
  public enum Dialect: Sendable {
    /// QEMU 7.2.
    case v7
    /// QEMU 10.0.
    case v10

    /// Major, minor and micro version that are told.
    var version: (major: Int, minor: Int, micro: Int) {
      switch self {
      case .v7: (7, 2, 0)
      case .v10: (10, 0, 0)
      }
    }
  }

  /// Which QEMU's replies a client expects, where they differ.
  public var dialect = Dialect.v7
  /// What the machine process calls itself.
  public var package = "spindle"
  /// What the monitor is called in errors of its start.
  public var option = "monitor"
  /// The monitor's name (`-chardev id=`).
  public var label = "compat_monitor0"
  /// What there is of character devices; where none is named, the monitor's own.
  public var characterDevices: [CharacterDevice] = []
  /// The time of day, for events.
  public var now: @Sendable () -> (seconds: Int, microseconds: Int) = {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return (time.tv_sec, time.tv_nsec / 1000)
  }

  /// Settings as they are by default.
  public init() {}
}
