// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

/// A machine that somebody runs in our own process for a case.
public protocol BuiltinMachine: AnyObject {
  /// The client's end of a connected stream socket on which the machine speaks qtest; the caller takes it over, once.
  func takeSocket() -> OwnedDescriptor
  /// The same for the QMP monitor; nil where the machine has none.
  func takeMonitorSocket() -> OwnedDescriptor?
  /// Ends the machine and waits until nothing of it runs any more. Called once, when its sockets are closed.
  func end()
}

/// Where the machines of a run come from.
public enum QTestTarget: Sendable {
  /// A program with QEMU's command line: its name and first arguments. Each machine is a process of its own.
  case command([String])
  /// One machine that runs already and listens at a path, with the disks of one `MachineKind` and their contents; only
  /// cases of that kind that share a machine make sense there, and those that do not share one are left out.
  case socket(String)
  /// A machine of our own, made from QEMU-style option words (`-M q35 -m 128 -drive …`) without the qtest socket's own.
  case builtin(@Sendable ([String]) throws -> any BuiltinMachine)
}

/// Whose machine it is, as far as differences are known.
public enum TargetKind: String, Sendable {
  /// QEMU, known by what it says of its version.
  case qemu
  /// Spindle, or a machine that nobody knows: no differences are expected.
  case other
}

/// Starts machines at a target. What it has learned of a program is kept, so one launcher serves a whole run.
/// Any thread may launch.
public final class QTestLauncher: Sendable {
  /// How long a process may take to connect.
  static let connectMillisecondsMax = 20_000
  private static let connectStepMilliseconds: Int32 = 50
  /// The boot ROM of a processor that shall sleep: `cli; hlt; jmp` back, where a PC begins, 16 bytes before the end.
  private static let romBytes = 64 << 10
  private static let romProgram: [UInt8] = [0xFA, 0xF4, 0xEB, 0xFD]

  /// Where machines come from.
  public let target: QTestTarget
  /// Whose machines they are.
  public let kind: TargetKind
  /// The first connection to a machine that runs already, which shows that there is one.
  private let firstConnection: DescriptorSlot?
  /// Whether the program has the accelerator that lets no processor run.
  private let hasQTestAccelerator: Bool

  /// Asks the program of a `.command` target what it is, and connects to a `.socket`.
  public init(_ target: QTestTarget) throws(TransportError) {
    self.target = target
    if case .socket(let path) = target {
      firstConnection = DescriptorSlot(try MachineSocket.connect(to: path))
    } else {
      firstConnection = nil
    }
    guard case .command(let words) = target else {
      kind = .other
      hasQTestAccelerator = true
      return
    }
    guard !words.isEmpty else { throw TransportError(.notRunning, "the target's command is empty") }
    // A line of its own begins so; others may mention whose command line they understand.
    let isQEMU = try Self.answer(of: words + ["--version"]).split(separator: "; ")
      .contains { $0.hasPrefix("QEMU emulator") }
    kind = isQEMU ? .qemu : .other
    // Only QEMU is ever built without it.
    hasQTestAccelerator =
      kind == .qemu
      ? try Self.answer(of: words + ["-accel", "help"]).split(separator: "; ").contains("qtest") : true
  }

  private static func answer(of words: [String]) throws(TransportError) -> String {
    let folder = try TemporaryFolder()
    let process = try ChildProcess(words, outputPath: folder.file("answer"))
    guard process.waitForEnd(milliseconds: connectMillisecondsMax) else {
      throw TransportError(.timedOut, "\(words.joined(separator: " ")) does not end")
    }
    return process.output
  }

  /// Starts a machine.
  /// - Parameters:
  ///   - options: QEMU-style words that say what the machine has; a running machine has them or not.
  ///   - needsMonitor: whether the monitor's socket is wanted too.
  public func launch(_ options: [String], needsMonitor: Bool = false) throws(TransportError) -> QTestConnection {
    switch target {
    case .command(let words):
      return try launch(words, options, needsMonitor: needsMonitor)
    case .socket(let path):
      if let first = firstConnection?.take() {
        return QTestConnection(client: QTestClient(taking: first), monitor: nil)
      }
      return QTestConnection(client: try QTestClient.connect(to: path), monitor: nil)
    case .builtin(let make):
      let machine: any BuiltinMachine
      do {
        machine = try make(options)
      } catch {
        throw TransportError(.notRunning, "the machine could not be made: \(error)")
      }
      let client = QTestClient(taking: machine.takeSocket())
      var monitor: MonitorClient?
      if needsMonitor, let socket = machine.takeMonitorSocket() { monitor = try MonitorClient(taking: socket) }
      return QTestConnection(client: client, monitor: monitor, machine: machine)
    }
  }

  private func launch(
    _ words: [String], _ options: [String], needsMonitor: Bool
  ) throws(TransportError) -> QTestConnection {
    let folder = try TemporaryFolder()
    let socketPath = folder.file("qtest")
    let monitorPath = folder.file("qmp")
    let listener = try MachineSocket.listen(at: socketPath)
    let monitorListener = try MachineSocket.listen(at: monitorPath)
    var line = words + ["-qtest", "unix:\(socketPath)", "-qtest-log", "/dev/null", "-display", "none", "-nodefaults"]
    if needsMonitor {
      line += ["-chardev", "socket,path=\(monitorPath),id=char0", "-mon", "chardev=char0,mode=control"]
    }
    line += hasQTestAccelerator ? ["-accel", "qtest"] : ["-accel", "tcg", "-bios", try Self.writeROM(in: folder)]
    let process = try ChildProcess(line + options, outputPath: folder.file("output"))
    let client = QTestClient(taking: try Self.awaitConnection(listener, process, line + options))
    var monitor: MonitorClient?
    if needsMonitor {
      monitor = try MonitorClient(taking: try Self.awaitConnection(monitorListener, process, line + options))
    }
    return QTestConnection(client: client, monitor: monitor, process: process, folder: folder)
  }

  private static func awaitConnection(
    _ listener: borrowing OwnedDescriptor, _ process: ChildProcess, _ line: [String]
  ) throws(TransportError) -> OwnedDescriptor {
    var waited = 0
    while waited < connectMillisecondsMax {
      if let accepted = try MachineSocket.accept(listener, milliseconds: connectStepMilliseconds) { return accepted }
      if let epitaph = process.epitaph {
        throw TransportError(.notRunning, "\(line.joined(separator: " ")): \(epitaph)")
      }
      waited += Int(connectStepMilliseconds)
    }
    throw TransportError(.timedOut, "\(line.joined(separator: " ")) does not connect; it wrote: \(process.output)")
  }

  private static func writeROM(in folder: TemporaryFolder) throws(TransportError) -> String {
    var rom = [UInt8](repeating: 0xFF, count: romBytes)
    rom.replaceSubrange((romBytes - 16)..<(romBytes - 16 + romProgram.count), with: romProgram)
    let path = folder.file("rom")
    do {
      try writeWholeFile(path, rom)
    } catch {
      throw TransportError(.system, "\(path): \(error)")
    }
    return path
  }
}

/// A machine that runs, and the connection to it. It ends with this object. Belongs to one thread.
public final class QTestConnection {
  /// The qtest connection.
  public let client: QTestClient
  /// The monitor, where it was asked for and there is one.
  public let monitor: MonitorClient?
  private let process: ChildProcess?
  private let machine: (any BuiltinMachine)?
  private let folder: TemporaryFolder?

  init(
    client: QTestClient, monitor: MonitorClient?, process: ChildProcess? = nil,
    machine: (any BuiltinMachine)? = nil, folder: TemporaryFolder? = nil
  ) {
    self.client = client
    self.monitor = monitor
    self.process = process
    self.machine = machine
    self.folder = folder
  }

  /// How the machine's process has ended, with what it wrote; nil while it runs or where there is none.
  public var epitaph: String? {
    // A process whose socket closed is about to end.
    guard let process, process.waitForEnd(milliseconds: 500) else { return nil }
    return process.epitaph
  }

  deinit {
    process?.end()
    machine?.end()
  }
}
