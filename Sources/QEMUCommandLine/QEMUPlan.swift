// SPDX-License-Identifier: Apache-2.0
import Assembly
import Monitor

/// The machine that a QEMU command line asks for, in our own terms.
public struct QEMUPlan: Sendable {
  /// What board it is. Both PCs are the same hardware here; `none` has none.
  public enum Board: String, Sendable {
    /// No hardware at all: test programs ask such a process what machines there are.
    case none
    /// The PC with PCI Express, which is also what `pc` gets here.
    case q35
    /// The older PC.
    case pc
  }

  /// What runs the guest.
  public enum Accelerator: String, Sendable {
    /// Nobody: a qtest client plays the processor.
    case qtest
    /// The host's KVM.
    case kvm
  }

  /// Bytes for a named file of the firmware's configuration.
  public struct FirmwareFile: Equatable, Sendable {
    /// Its name, such as `opt/org.example/text`.
    public var name: String
    /// Where its bytes come from.
    public var source: Source

    /// Where the bytes of a file come from.
    public enum Source: Equatable, Sendable {
      /// The text itself.
      case text(String)
      /// A file of the host.
      case file(path: String)
    }
  }

  /// What board it is.
  public var board = Board.q35
  /// What runs the guest.
  public var accelerator = Accelerator.kvm
  /// Bytes of RAM.
  public var memoryBytes: UInt64 = 128 << 20
  /// Virtual processors.
  public var processorCount = 1
  /// The drives that a guest sees, in the order in which they come.
  public var drives: [DriveConfiguration] = []
  /// Drives and block nodes that no device uses yet, by their names; a monitor may put them into one later.
  public var spares: [DriveConfiguration] = []
  /// PCI slot of the first disk that names none: where it is on QEMU's board, which has a display and a network adapter before
  /// it unless they are left out.
  public var firstDiskSlot = 3
  /// The image that is booted; nil without one.
  public var kernel: String?
  /// Its command line.
  public var commandLine = ""
  /// The other end of the first serial port.
  public var serial = Endpoint.null
  /// Where the qtest client is; nil without one.
  public var qtest: Endpoint?
  /// Where the conversation with it is logged; nil for standard error, as QEMU does.
  public var qtestLog: String?
  /// Where clients of the machine's monitor are.
  public var monitors: [Endpoint] = []
  /// Which QEMU's replies the monitor's clients expect. QEMU's test library of the newer age is known by the `-audio`
  /// that it writes; the older one gives up at members that the newer one requires, so there is no answer for both.
  public var dialect = MonitorSettings.Dialect.v7
  /// The guest waits for the monitor's `cont`.
  public var startsPaused = false
  /// A reset ends the machine.
  public var endsAtReset = false
  /// The process ends when the one that started it does.
  public var endsWithParent = false
  /// The process stays when the guest has switched the machine off.
  public var staysAtShutdown = false
  /// Ends of what moves characters, for the monitor.
  public var characterDevices: [CharacterDevice] = []
  /// Nodes that stand on others, and those, by their names.
  public var lowerNodes: [String: String] = [:]
  /// The guest's name, for the monitor.
  public var name: String?
  /// Named files of the firmware's configuration.
  public var firmwareFiles: [FirmwareFile] = []
  /// What the firmware is to boot.
  public var boot = Boot()
  /// The machine's UUID, 16 bytes.
  public var uuid = [UInt8](repeating: 0, count: 16)
  /// Where the process's number is written.
  public var pidFile: String?
  /// What the real-time clock shows first: `utc`, `localtime` or a date.
  public var clockBase = "utc"
  /// The name of an AHCI controller that the guest may eject; nil where the controller is the board's.
  public var removableController: String?
  /// The debug exit device's port; nil without one.
  public var debugExitPort: UInt16?

  /// What the command line asks for instead of a machine.
  public enum Question: Sendable {
    /// `--help`.
    case help
    /// `--version`.
    case version
    /// `-accel help`, `-device help`, `-machine help`.
    case list(String)
  }
  /// Answered instead of starting a machine.
  public var question: Question?

  /// Understands a command line, without the program's name.
  /// - Throws: one line that names the option, the value and the way out.
  public init(_ words: [String]) throws(UsageError) {
    let words = try OptionWords(words)
    if words.has("help") { question = .help }
    if words.has("version") { question = .version }
    for option in ["accel", "device", "machine"]
    where words.all(option).contains(where: { ["help", "?"].contains($0) }) {
      question = .list(option)
    }
    if question != nil { return }
    try readBoard(words)
    try readSize(words)
    try readEndpoints(words)
    try readBoot(words)
    try readFirmware(words)
    try readSwitches(words)
    var devices = try DevicePlanner(words, board: board)
    try devices.plan()
    lowerNodes = devices.lowerNodes
    drives = devices.drives
    spares = devices.spares
    debugExitPort = devices.debugExitPort
    // Cards of the older board can be ejected; the bus of the newer one has no such ports on QEMU.
    if board == .pc { removableController = devices.controllerCard }
    if board == .none, !drives.isEmpty {
      throw UsageError("-machine none: has no bus for devices; write -machine q35")
    }
  }
}
