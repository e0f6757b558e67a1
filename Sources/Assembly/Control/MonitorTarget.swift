// SPDX-License-Identifier: Apache-2.0
import Block
import EventLoop
import Machine

/// What a monitor asks of a machine that runs. `MachineControl` is the one that does it; tests play others.
///
/// Everything is called on the main loop's thread with the machine lock held, and closures are called there too, maybe
/// before the call returns. An operation that moves a tray, stops, resumes or resets posts its event before it returns or
/// answers.
public protocol MonitorTarget: AnyObject {
  /// The main loop.
  var loop: EventLoop { get }
  /// The user's name for the machine.
  var machineName: String? { get }
  /// What the machine is, as `MachineShape` names them.
  var shape: MachineShape { get }
  /// Whether the guest runs on KVM.
  var usesKVM: Bool { get }
  /// Whether the guest runs, and why not.
  var runState: RunState { get }
  /// Why the machine ends; nil while nothing has asked for it.
  var shutdownReason: ShutdownReason? { get }
  /// Tells `observer` of every event from here on.
  func observe(_ observer: @escaping (MachineEvent) -> Void)

  // MARK: Running

  /// Stops the guest.
  func stop()
  /// Lets the guest run on; requests that failed and wait are tried again.
  func cont() throws(ControlError)
  /// Says what becomes of the process when the guest asks for a reset or ends the machine; nil leaves it as it is.
  func setPolicies(reset: ResetPolicy?, shutdown: ShutdownPolicy?) throws(ControlError)
  /// Virtual processors.
  var processorCount: Int { get }
  /// Resets the machine, and tells when that is done.
  func reset(done: @escaping () -> Void) throws(ControlError)
  /// Asks the guest to power down.
  func powerDown() throws(ControlError)
  /// Ends the machine, and tells when its end has begun.
  func quit(done: @escaping () -> Void)

  // MARK: Drives

  /// The drives, as they were configured.
  var drives: [DriveReport] { get }
  /// Everything that is in a drive or could be put into one.
  var nodes: [NodeReport] { get }
  /// Gives the counts of every drive.
  func statistics(_ answer: @escaping ([DriveStatistics]) -> Void)
  /// Opens a tray; one that is open stays so. `force`: even where the guest has locked it.
  func openTray(of drive: DriveReference, force: Bool) throws(ControlError)
  /// Closes a tray; one that is closed stays so.
  func closeTray(of drive: DriveReference) throws(ControlError)
  /// Takes what is on the open tray; an empty tray stays so. The loop may run meanwhile.
  func removeMedium(of drive: DriveReference) throws(ControlError)
  /// Puts a node on the open tray.
  func insertMedium(node: String, into drive: DriveReference) throws(ControlError)
  /// Puts another image into a drive: opens its tray, changes the medium, closes it. The loop may run meanwhile.
  func changeMedium(of drive: DriveReference, to image: DriveConfiguration, force: Bool) throws(ControlError)
  /// Makes a drive that a device may be given.
  func addDrive(_ drive: DriveConfiguration) throws(ControlError)
  /// Takes a drive away that no device uses.
  func removeDrive(named name: String) throws(ControlError)
  /// Makes a node that a drive or device can be given; its name is the configuration's `id`.
  func addNode(_ configuration: DriveConfiguration) throws(ControlError)
  /// Makes a node that stands on another one, whose bytes it has.
  func addNode(named name: String, over lower: String, isReadOnly: Bool) throws(ControlError)
  /// Takes a node away that is in no drive and that no other node stands on.
  func removeNode(named name: String) throws(ControlError)
  /// Changes the size of what is in a drive, or of a node, and tells the guest.
  func resize(drive: String?, node: String?, to byteCount: UInt64, done: @escaping (ControlError?) -> Void)
  /// Limits the speed of a drive that has a medium; it has its limits when `done` is called.
  func setLimits(of drive: DriveReference, to limits: ThrottleLimits, done: @escaping () -> Void) throws(ControlError)
  /// Reads or writes beside the guest. What was read is the answer's value; it is empty for all else.
  func transfer(
    _ transfer: HostTransfer, drive: String, done: @escaping (Result<[UInt8], ControlError>) -> Void)

  /// Holds requests on their way to a drive's disk, or lets them go on.
  func debug(_ command: BreakpointCommand, drive: String, done: @escaping (ControlError?) -> Void)
  /// Waits until nothing is under way in a node that is in a drive. The loop may run meanwhile.
  func drain(node: String, done: @escaping (ControlError?) -> Void)
  /// Makes requests of all drives that wait for time go on: somebody waits for their end.
  func letWaitingGo()

  // MARK: Devices

  /// Plugs a device in: its model and its options, as text.
  func addDevice(model: String, options: [String: String]) throws(ControlError)
  /// Asks the guest to let a device go; `MachineEvent.deviceDeleted` says when it has.
  func removeDevice(id: String) throws(ControlError)
  /// The functions on the PCI bus, in the order of their addresses.
  var pciFunctions: [PCIFunction] { get }
  /// The devices with a name, and the model of each.
  var devices: [DeviceReport] { get }

  // MARK: Spindle's own

  /// What was chosen for each drive, and why.
  var engineNotes: [String] { get }
  /// The loops and how often each was woken.
  var loops: [LoopReport] { get }
}

/// What a machine is, for clients that ask.
public enum MachineShape: String, CaseIterable, Sendable {
  /// A PC with QEMU's i440FX board.
  case pc
  /// A PC with QEMU's Q35 board.
  case q35
  /// A machine with nothing on it.
  case none

  /// The name of the type of machine, as QEMU 7.2 calls it.
  public var typeName: String {
    switch self {
    case .pc: "pc-i440fx-7.2-machine"
    case .q35: "pc-q35-7.2-machine"
    case .none: "none-machine"
    }
  }
}

/// A device with a name.
public struct DeviceReport: Equatable, Sendable {
  /// The name.
  public var id: String
  /// What it is, as users of QEMU name it.
  public var model: String
  /// What it is on, such as `pcie.0` or `ide.0`.
  public var bus: String
  /// It came while the machine ran.
  public var isHotPlugged: Bool

  /// Describes a device.
  public init(id: String, model: String, bus: String, isHotPlugged: Bool = false) {
    self.id = id
    self.model = model
    self.bus = bus
    self.isHotPlugged = isHotPlugged
  }
}
