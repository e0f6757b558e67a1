// SPDX-License-Identifier: Apache-2.0
// Monitor: a machine's user in conversation with it, by the protocol of QEMU's monitor (QMP), over a socket or standard
// input and output. It knows what can be asked of a machine (`MonitorTarget`), not how it is made.
import Assembly
import EventLoop
import Glibc
import HostSystem
import Machine

/// A monitor of a machine: it takes clients, one at a time, and tells them what happens.
///
/// Made, started and closed on the main thread. While the machine runs, everything happens on the main loop, which holds
/// the machine lock.
public final class Monitor {
  /// Clients that wait in the kernel while another one is served. Further ones wait in connect(2), or fail.
  public static let backlogMax: Int32 = 8
  /// How long no client is taken after one could not be.
  private static let acceptRetryNs: UInt64 = 1_000_000_000
  /// How long the machine's end waits for a client that does not read.
  public static let farewellMs: Int32 = 1000

  /// Where clients come from.
  public let address: MonitorAddress
  /// Clients that have been served, the present one included.
  public private(set) var clientCount = 0
  private let target: any MonitorTarget
  private let commands: MonitorCommands
  private var session: MonitorSession?
  private var listener: Listener?

  /// Describes a monitor; `start` opens it.
  public init(target: any MonitorTarget, address: MonitorAddress, settings: MonitorSettings = MonitorSettings()) {
    self.target = target
    self.address = address
    commands = MonitorCommands(target: target, settings: settings, address: address)
    target.observe { [weak self] in self?.happened($0) }
  }

  // MARK: Clients

  /// Connects, or begins to listen. Main thread, before the machine runs, or on the main loop.
  /// - Throws: one line that names the socket and the way out.
  public func start() throws(SetupError) {
    do throws(SystemError) { try open() } catch {
      throw SetupError("\(commands.settings.option): \(name): \(Self.advice(error))")
    }
  }

  private func open() throws(SystemError) {
    switch address {
    case .connectUnix(let path): try serve(try StreamSocket.connect(path: path))
    case .connectLoopback(let port): try serve(try StreamSocket.connect(loopbackPort: port))
    case .descriptor(let number): try serve(OwnedDescriptor(taking: number))
    case .standardIO: serve(try MonitorChannel.standardIO(loop: target.loop))
    case .listenUnix(let path, _): listen(try StreamSocket.listen(path: path, backlog: Self.backlogMax), path: path)
    case .listenLoopback(let port, _):
      listen(try StreamSocket.listen(loopbackPort: port, backlog: Self.backlogMax), path: nil)
    }
  }

  private static func advice(_ error: SystemError) -> String {
    switch error.code {
    case EADDRINUSE: "in use already, or not a socket; choose another address, or remove it"
    case ECONNREFUSED: "nobody listens there; start the client first, or write server=on"
    case ENOENT where error.operation == "connect":
      "there is no such socket; start the client first, or write server=on"
    case ENOENT where error.operation == "bind": "there is no such folder; make it first"
    case ENAMETOOLONG:
      "the path of a Unix socket has at most \(StreamSocket.pathBytesMax) bytes; choose a shorter one"
    case EBADF: "that descriptor is not open; give the process an open socket"
    default: "\(error)"
    }
  }

  private var name: String {
    switch address {
    case .connectUnix(let path), .listenUnix(let path, _): path
    case .connectLoopback(let port), .listenLoopback(let port, _): "127.0.0.1:\(port)"
    case .descriptor(let number): "descriptor \(number)"
    case .standardIO: "standard input and output"
    }
  }

  /// Whether the machine is not to run before the first client is there (`wait=on`).
  public var waitsForClient: Bool {
    switch address {
    case .listenUnix(_, let waits), .listenLoopback(_, let waits): waits
    default: false
    }
  }

  /// Runs the main loop until a client is there, where it is to be waited for, or the machine is asked to end. Main
  /// thread, between `start` and the machine's run.
  public func waitForClient() {
    guard waitsForClient else { return }
    while session == nil, target.shutdownReason == nil { target.loop.runOnce(mayBlock: true) }
  }

  /// The port of 127.0.0.1 at which it listens; nil for all other monitors.
  public var port: UInt16? { listener?.port }

  private func listen(_ descriptor: consuming OwnedDescriptor, path: String?) {
    let listener = Listener(descriptor, path: path, loop: target.loop) { [weak self] in self?.accept() }
    self.listener = listener
    listener.isListening = true
  }

  private func accept() {
    guard let listener, session == nil else { return }
    do throws(SystemError) {
      guard let client = try listener.accept() else { return }
      try serve(client)
    } catch {
      // Without descriptors there are no clients, and the machine is more important. The client waits in the kernel and
      // would wake the loop at once again.
      StandardError.print("spindle: monitor: a client could not be served: \(error)")
      listener.rest(nanoseconds: Self.acceptRetryNs)
    }
  }

  private func serve(_ client: consuming OwnedDescriptor) throws(SystemError) {
    serve(try MonitorChannel(socket: client, loop: target.loop))
  }

  private func serve(_ channel: MonitorChannel) {
    clientCount += 1
    // One client at a time; the next one waits in the kernel.
    listener?.isListening = false
    channel.onClosed = { [weak self] in self?.clientGone() }
    session = MonitorSession(channel: channel, commands: commands)
  }

  private func clientGone() {
    session = nil
    listener?.isListening = true
  }

  /// Says goodbye and lets go of everything; a socket that was made is removed. Main thread, after the machine has ended.
  public func close() {
    session?.finish(milliseconds: Self.farewellMs)
    session = nil
    listener?.close()
    listener = nil
  }

  // MARK: Events

  private func happened(_ event: MachineEvent) {
    if let told = commands.describe(event) { session?.tell(told) }
  }
}

/// A socket at which clients arrive. Loop thread.
private final class Listener: DescriptorHandler, @unchecked Sendable {
  private let owned: OwnedDescriptor
  private let path: String?
  private let loop: EventLoop
  private let arrived: () -> Void
  private var timer: RestTimer?

  init(_ descriptor: consuming OwnedDescriptor, path: String?, loop: EventLoop, arrived: @escaping () -> Void) {
    owned = descriptor
    self.path = path
    self.loop = loop
    self.arrived = arrived
    super.init(descriptor: owned.number)
  }

  var isListening = false {
    didSet {
      guard isListening != oldValue else { return }
      if isListening { loop.add(self) } else { loop.remove(self) }
    }
  }

  var port: UInt16? { path == nil ? try? StreamSocket.port(of: owned) : nil }

  func accept() throws(SystemError) -> OwnedDescriptor? { try StreamSocket.accept(owned) }

  /// Takes no client for a while.
  func rest(nanoseconds: UInt64) {
    isListening = false
    let timer = RestTimer(loop: loop)
    timer.listener = self
    self.timer = timer
    timer.arm(atNanoseconds: HostClock.nanoseconds + nanoseconds)
  }

  func close() {
    timer?.cancel()
    isListening = false
    if let path { unlink(path) }
  }

  override func ready() { arrived() }
}

/// Ends a listener's rest.
private final class RestTimer: LoopTimer {
  weak var listener: Listener?
  override func fired() { listener?.isListening = true }
}
