// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Glibc
import GuestMemory
import HostSystem
import Synchronization
import Testing

@testable import Machine

/// Bytes of RAM, from address 0 on, of the machines under test.
let ramBytes: UInt64 = 1 << 20

func makeMachine() throws -> Machine {
  let memory = GuestMemory()
  try memory.add(try GuestRegion(start: 0, byteCount: ramBytes))
  return Machine(memory: memory, mainLoop: try EventLoop(name: "test"))
}

/// Remembers what reaches the accelerator's side.
final class RecordingController: InterruptController, @unchecked Sendable {
  struct Level: Equatable {
    var line: Int
    var asserted: Bool
  }
  private let state = Mutex<(messages: [MSIMessage], levels: [Level], routes: Int)>(([], [], 0))

  var messages: [MSIMessage] { state.withLock { $0.messages } }
  var levels: [Level] { state.withLock { $0.levels } }
  var routeCount: Int { state.withLock { $0.routes } }

  override func makeRoute() -> InterruptRoute {
    state.withLock { $0.routes += 1 }
    return InterruptRoute(controller: self)
  }
  override func send(_ message: MSIMessage) { state.withLock { $0.messages.append(message) } }
  override func setLine(_ line: Int, asserted: Bool) {
    state.withLock { $0.levels.append(Level(line: line, asserted: asserted)) }
  }
}

/// Registers that remember accesses and answer with a value of their own.
final class RecordingBlock: RegisterBlock {
  struct Access: Equatable {
    var offset: UInt64
    var width: Int
    var value: UInt64?
  }
  var accesses: [Access] = []
  let answer: UInt64
  init(answer: UInt64 = 0x1122_3344_5566_7788) { self.answer = answer }

  override func read(offset: UInt64, width: Int) -> UInt64 {
    accesses.append(Access(offset: offset, width: width, value: nil))
    return answer
  }
  override func write(offset: UInt64, width: Int, value: UInt64) {
    accesses.append(Access(offset: offset, width: width, value: value))
  }
}

/// A function that remembers what it is told about its BARs.
final class TestFunction: PCIFunction {
  enum Event: Equatable {
    case mapped(Int, UInt64)
    case unmapped(Int)
  }
  var events: [Event] = []

  init(_ device: UInt8 = 4, _ function: UInt8 = 0, pin: UInt8 = 1, name: String = "test") {
    super.init(
      name: name, address: PCIAddress(device: device, function: function),
      identity: PCIIdentity(
        vendor: 0x1af4, device: 0x1042, classCode: 0x018000, revision: 1, subsystemVendor: 0x1af4, subsystem: 2,
        interruptPin: pin))
  }
  override func barMapped(_ index: Int, at address: UInt64) { events.append(.mapped(index, address)) }
  override func barUnmapped(_ index: Int) { events.append(.unmapped(index)) }

  var command: UInt16 {
    get { UInt16(configurationRead(offset: PCIRegister.command, width: 2)) }
    set { configurationWrite(offset: PCIRegister.command, width: 2, value: UInt32(newValue)) }
  }
}

/// Runs `body` on threads of their own and waits for all of them.
func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) throws {
  let threads = try (0..<count).map { index in try HostThread(name: "test-\(index)") { body(index) } }
  threads.forEach { $0.join() }
}

/// A flag that threads may wait for.
final class Gate: Sendable {
  private let isOpenFlag = Atomic<Bool>(false)
  var isOpen: Bool { isOpenFlag.load(ordering: .acquiring) }
  func open() { isOpenFlag.store(true, ordering: .releasing) }
  func wait() { while !isOpen { sched_yield() } }
}
