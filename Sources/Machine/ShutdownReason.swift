// SPDX-License-Identifier: Apache-2.0

/// Why a machine ended.
public enum ShutdownReason: Equatable, Sendable {
  /// The guest ended the machine through the debug exit port, with this process exit status.
  case guestExit(status: Int32)
  /// A signal asked this process to end.
  case signal(Int32)
  /// The guest asked for a reset (port 0xcf9, triple fault), and the machine's policy is to end then.
  case reset
  /// The guest switched the machine off (ACPI's state S5).
  case powerOff
  /// A virtual processor cannot go on (the accelerator has said why).
  case guestFault
  /// The host's user asked for it (QMP `quit`, the end of a test).
  case hostRequest
  /// The host's user asked for a reset, and the machine's policy is to end then.
  case hostReset

  /// Whether the guest has brought it about.
  public var isByGuest: Bool {
    switch self {
    case .guestExit, .reset, .powerOff, .guestFault: true
    case .signal, .hostRequest, .hostReset: false
    }
  }

  /// One word that fits an atomic: the case in the upper half (never 0, which means "none"), its value in the lower.
  var word: UInt64 {
    switch self {
    case .guestExit(let status): 1 << 32 | UInt64(UInt32(bitPattern: status))
    case .signal(let number): 2 << 32 | UInt64(UInt32(bitPattern: number))
    case .reset: 3 << 32
    case .hostRequest: 4 << 32
    case .guestFault: 5 << 32
    case .powerOff: 6 << 32
    case .hostReset: 7 << 32
    }
  }

  /// The reason that `word` stands for; nil for 0.
  init?(word: UInt64) {
    let value = Int32(bitPattern: UInt32(truncatingIfNeeded: word))
    switch word >> 32 {
    case 1: self = .guestExit(status: value)
    case 2: self = .signal(value)
    case 3: self = .reset
    case 4: self = .hostRequest
    case 5: self = .guestFault
    case 6: self = .powerOff
    case 7: self = .hostReset
    default: return nil
    }
  }
}

/// What a guest's request for a reset does.
public enum ResetPolicy: Equatable, Sendable {
  /// The machine shuts down with `ShutdownReason.reset`: a directly booted kernel has no firmware to return to.
  case shutdown
  /// Every device is drained and reset, and the machine goes on.
  case resetDevices
}

/// What becomes of the process when the guest switches the machine off, or resets it under `ResetPolicy.shutdown`. All
/// other reasons end it.
public enum ShutdownPolicy: Equatable, Sendable {
  /// `Machine.run` returns.
  case end
  /// The guest is stopped for good (`RunState.shutdown`), and `Machine.run` goes on; a reset lets the guest begin anew.
  case pause
}
