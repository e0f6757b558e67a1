// SPDX-License-Identifier: Apache-2.0
import CLinux
import EventLoop
import GuestMemory
import Machine
import Synchronization

/// Where the interrupts of a machine without processors go: a message is a write to the address that it names, as on the
/// bus, and lines are told to the client that has asked for them.
///
/// Messages come from any thread. All else is called with the machine lock held.
final class QTestInterrupts: InterruptController, @unchecked Sendable {
  /// Inputs of a PC's I/O APIC.
  static let linesMax = 24
  /// Of those, the inputs that the two older interrupt controllers have together.
  static let oldLinesMax = 16
  /// Messages to device memory that wait at most; further ones are lost. A guest can make devices send each other messages
  /// without end.
  static let messagesMax = 64

  /// What a client has asked to be told of.
  enum Interception: Equatable {
    /// The first so many inputs of an interrupt controller.
    case inputs(Int)
    /// A PCI function's interrupt pin, as its output 0.
    case pin(PCIAddress)
  }

  private unowned(unsafe) let machine: Machine
  private let messages: MessagesToDevices
  /// What is intercepted; nil for nothing. It stays for the machine's life, also for a later client.
  private(set) var interception: Interception?
  private var levels = [Bool](repeating: false, count: linesMax)
  // By `PCIAddress.index`.
  private var pins = [Bool](repeating: false, count: 256)
  // What the client was told last.
  private var told = [Bool](repeating: false, count: linesMax)
  // Some level is not what the client was told, for want of room.
  private var isBehind = false
  /// Takes a line for the client, and says whether there was room for it.
  var tell: (_ line: Int, _ asserted: Bool) -> Bool = { _, _ in true }

  /// Makes the interrupt side of `machine`, which owns it.
  init(machine: Machine) {
    self.machine = machine
    messages = MessagesToDevices(machine: machine)
    super.init()
  }

  // MARK: Messages

  /// Stores the message's data where its address says. Any thread.
  override func send(_ message: MSIMessage) {
    // What the device has written before is there when the message is; on the other side the client's request for it comes
    // through the machine lock, and pairs with this by the order of the two.
    clinux_fence_release()
    do throws(GuestMemoryError) {
      try machine.memory.store(message.data, at: message.address)
    } catch {
      // No processor listens at the address of local APICs. The rest is for the main loop: the caller holds a vector's
      // lock, which the registers of that vector would take again.
      if !message.isInterrupt { messages.add(message) }
    }
  }

  /// Writes messages to device memory, on the main loop.
  private final class MessagesToDevices: BottomHalf, @unchecked Sendable {
    private unowned(unsafe) let machine: Machine
    private let waiting = Mutex<[MSIMessage]>([])

    init(machine: Machine) {
      self.machine = machine
      super.init(loop: machine.mainLoop)
    }

    func add(_ message: MSIMessage) {
      waiting.withLock { if $0.count < QTestInterrupts.messagesMax { $0.append(message) } }
      schedule()
    }

    /// Only what waits now: what these writes cause has its turn in the loop's next round.
    override func run() {
      let now = waiting.withLock { messages in
        defer { messages = [] }
        return messages
      }
      for message in now { QTestMemory(machine).store(UInt64(message.data), at: message.address, width: 4) }
    }
  }

  // MARK: Lines

  /// Begins to tell of changes.
  /// - Returns: false where something else is intercepted already; asking for the same again is no mistake.
  func intercept(_ wanted: Interception) -> Bool {
    if let interception { return interception == wanted }
    interception = wanted
    return true
  }

  /// A client has come, who takes every line for released.
  func clientCame() {
    told = [Bool](repeating: false, count: Self.linesMax)
    isBehind = false
  }

  /// There is room for lines again.
  func roomCame() {
    guard isBehind else { return }
    isBehind = false
    for line in 0..<Self.linesMax { tellChange(line) }
  }

  override func setLine(_ line: Int, asserted: Bool) {
    guard levels.indices.contains(line) else { return }
    levels[line] = asserted
    tellChange(line)
  }

  override func pinChanged(of function: PCIAddress, pin: UInt8, asserted: Bool) {
    pins[function.index] = asserted
    if interception == .pin(function) { tellChange(0) }
  }

  /// Tells the client of a line's level where that is news. One that comes and goes while there is no room is not told.
  private func tellChange(_ line: Int) {
    let level: Bool
    switch interception {
    case .inputs(let count) where line < count: level = levels[line]
    case .pin(let function) where line == 0: level = pins[function.index]
    default: return
    }
    if told[line] == level { return }
    if tell(line, level) { told[line] = level } else { isBehind = true }
  }
}
