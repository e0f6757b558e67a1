// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Glibc
import GuestMemory
import HostSystem
import Machine
import Synchronization
import Testing

/// Bytes of RAM, from address 0 on, of the machines under test.
let ramBytes: UInt64 = 4 << 20

/// Where tests put a device: ports and device memory that nothing else has.
let devicePort: UInt16 = 0x500
let deviceAddress: UInt64 = 0xd000_0000

func makeMachine() throws -> Machine {
  let memory = GuestMemory()
  try memory.add(try GuestRegion(start: 0, byteCount: ramBytes))
  return Machine(memory: memory, mainLoop: try EventLoop(name: "test"))
}

/// A test that has to wait fails after so long; nothing is measured by it.
let watchdogSeconds: Int32 = 60

/// Something that threads announce and a test waits for.
final class Signal: Sendable {
  private let event: EventDescriptor

  init() throws { event = try EventDescriptor() }

  func send() { event.signal() }

  /// Waits until `condition` holds; it is looked at again after each `send`.
  /// - Returns: false where the watchdog ended the wait.
  func wait(until condition: () -> Bool) -> Bool {
    let start = HostClock.nanoseconds
    while !condition() {
      let elapsed = Int32((HostClock.nanoseconds - start) / 1_000_000_000)
      guard elapsed < watchdogSeconds else { return false }
      var descriptor = pollfd(fd: event.number, events: Int16(POLLIN), revents: 0)
      poll(&descriptor, 1, (watchdogSeconds - elapsed) * 1000)
      event.consume()
    }
    return true
  }
}

/// Registers that remember accesses, and answer with a pattern that shows where a value's bytes went.
final class Recorder: RegisterBlock, @unchecked Sendable {
  struct Access: Equatable, Sendable, CustomStringConvertible {
    var offset: UInt64
    var width: Int
    /// What was written; nil for a read.
    var value: UInt64?

    static func read(_ offset: UInt64, _ width: Int) -> Access { Access(offset: offset, width: width) }
    static func write(_ offset: UInt64, _ width: Int, _ value: UInt64) -> Access {
      Access(offset: offset, width: width, value: value)
    }
    var description: String {
      "\(value == nil ? "read" : "write") +\(offset)/\(width)" + (value.map { " 0x" + String($0, radix: 16) } ?? "")
    }
  }

  static let answer: UInt64 = 0x8877_6655_4433_2211

  private unowned let machine: Machine
  private let changed: Signal
  private let state = Mutex<(accesses: [Access], withoutLock: Int)>(([], 0))
  /// Called for each write, with the machine lock held.
  nonisolated(unsafe) var onWrite: ((Access) -> Void)?

  init(_ machine: Machine) throws {
    self.machine = machine
    changed = try Signal()
  }

  /// Everything until now, oldest first.
  var accesses: [Access] { state.withLock { $0.accesses } }
  /// Values written until now.
  var written: [UInt64] { accesses.compactMap(\.value) }
  /// Accesses that came without the machine lock.
  var withoutLock: Int { state.withLock { $0.withoutLock } }

  /// Waits until so many accesses have been made.
  func wait(count: Int) -> Bool { wait { accesses.count >= count } }

  /// Waits until `condition` holds; it is looked at after each access.
  func wait(until condition: () -> Bool) -> Bool { changed.wait(until: condition) }

  private func record(_ access: Access) {
    let isLocked = machine.lock.isHeld
    state.withLock { state in
      state.accesses.append(access)
      if !isLocked { state.withoutLock += 1 }
    }
    if access.value != nil { onWrite?(access) }
    changed.send()
  }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    record(.read(offset, width))
    return Self.answer >> (8 * (offset % 8))
  }

  override func write(offset: UInt64, width: Int, value: UInt64) {
    record(.write(offset, width, width == 8 ? value : value & (1 << UInt64(8 * width) - 1)))
  }
}

/// Numbers that threads add to.
final class Collected<Element: Sendable>: Sendable {
  private let state = Mutex<[Element]>([])
  var elements: [Element] { state.withLock { $0 } }
  func add(_ element: Element) { state.withLock { $0.append(element) } }
}

/// A function with MSI at 0x80, which a test programs as a guest would. Machine lock held.
final class MessageFunction: PCIFunction {
  private static let capability = 0x80

  init() {
    super.init(
      name: "msi", address: PCIAddress(device: 9, function: 0),
      identity: PCIIdentity(
        vendor: 0x8086, device: 0x2922, classCode: 0x010601, revision: 2, subsystemVendor: 0, subsystem: 0,
        interruptPin: 1))
    addMSI(at: Self.capability)
  }

  /// Writes the message and enables MSI, as bus master.
  func program(_ message: MSIMessage) {
    configurationWrite(offset: 4, width: 2, value: 4)
    configurationWrite(offset: Self.capability + 4, width: 4, value: UInt32(truncatingIfNeeded: message.address))
    configurationWrite(offset: Self.capability + 8, width: 4, value: UInt32(message.address >> 32))
    configurationWrite(offset: Self.capability + 12, width: 2, value: message.data)
    configurationWrite(offset: Self.capability + 2, width: 2, value: 1)
  }

  func disable() { configurationWrite(offset: Self.capability + 2, width: 2, value: 0) }
}
