// SPDX-License-Identifier: Apache-2.0
import HostSystem
import Synchronization
import Testing

@testable import Machine

/// A machine with a function whose MSI capability is at 0x80.
private struct Board {
  static let capability = 0x80
  let machine: Machine
  let interrupts = RecordingController()
  let function = TestFunction()
  let msi: MSI

  init(interrupts other: InterruptController? = nil) throws {
    machine = try makeMachine()
    machine.interrupts = other ?? interrupts
    function.addMSI(at: Board.capability)
    machine.attach(function)
    msi = try #require(function.msi)
    function.command = PCICommand.master
  }

  func read(_ offset: Int, _ width: Int) -> UInt32 {
    function.configurationRead(offset: Board.capability + offset, width: width)
  }

  func write(_ offset: Int, _ width: Int, _ value: UInt32) {
    function.configurationWrite(offset: Board.capability + offset, width: width, value: value)
  }

  func setEnabled(_ isEnabled: Bool) { write(2, 2, isEnabled ? 1 : 0) }

  func program(_ message: MSIMessage) {
    write(4, 4, UInt32(truncatingIfNeeded: message.address))
    write(8, 4, UInt32(message.address >> 32))
    write(12, 2, message.data)
  }

  /// What the registers say now.
  var programmed: MSIMessage {
    MSIMessage(address: UInt64(read(4, 4)) | UInt64(read(8, 4)) << 32, data: read(12, 2))
  }

  var showsInterrupt: Bool { function.configurationRead(offset: PCIRegister.status, width: 2) & 0x08 != 0 }
}

private let first = MSIMessage(address: 0x1_fee0_1000, data: 0x4041)
private let second = MSIMessage(address: 0xfee0_2000, data: 0x52)

@Suite struct MSITests {
  /// The bits of the capability that a guest can write, byte by byte (PCI 3.0, figure 6-9).
  private static let writable: [UInt8] = [0, 0, 1, 0, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
  private static let atReset: [UInt8] = [5, 0, 0x80, 0] + [UInt8](repeating: 0, count: 10)

  @Test func functionThatIsNoBusMasterSendsNothing() throws {
    let board = try Board()
    board.program(first)
    board.setEnabled(true)
    board.function.command = 0
    board.msi.notify()
    #expect(board.msi.isEnabled && board.interrupts.messages.isEmpty)
    board.function.command = PCICommand.master
    #expect(board.interrupts.messages.isEmpty)
    board.msi.notify()
    #expect(board.interrupts.messages == [first])
  }

  @Test func capabilityIsOneVectorWithA64BitAddress() throws {
    let board = try Board()
    #expect(board.function.configurationRead(offset: PCIRegister.capabilities, width: 1) == 0x80)
    #expect((0..<14).map { UInt8(board.read($0, 1)) } == Self.atReset)
    #expect(!board.msi.isEnabled)
  }

  @Test func capabilityStandsBesideOthersAtTheFirstRoom() throws {
    let function = TestFunction()
    function.addMSIX(vectorCount: 2, bar: 1, tableOffset: 0, pendingOffset: 0x800)
    function.addMSI()
    #expect(function.configurationRead(offset: 0x34, width: 1) == 0x40)
    #expect(function.configurationRead(offset: 0x40, width: 2) == 0x4c11)
    #expect(function.configurationRead(offset: 0x4c, width: 4) == 0x0080_0005)
    #expect(function.msi != nil && function.msix != nil)
  }

  @Test(arguments: [1, 2, 4])
  func writesOfEveryWidthToEveryByteChangeWritableBitsOnly(width: Int) throws {
    for start in -4..<18 {
      let board = try Board()
      for value in [UInt32.max, 0, 0xa5a5_a5a5, 0x5a5a_5a5a, 0x0102_0304] {
        let before = (-8..<24).map { UInt8(board.read($0, 1)) }
        board.write(start, width, value)
        for (index, old) in before.enumerated() {
          let offset = index - 8
          let mask = Self.writable.indices.contains(offset) ? Self.writable[offset] : 0
          let byte =
            (start..<start + width).contains(offset) ? UInt8(truncatingIfNeeded: value >> (8 * (offset - start))) : old
          #expect(UInt8(board.read(offset, 1)) == old & ~mask | byte & mask, "\(start), byte \(offset)")
        }
        // What the function does is what its registers say, whichever part of them was written.
        #expect(board.msi.isEnabled == (board.read(2, 2) & 1 != 0))
        let count = board.interrupts.messages.count
        board.msi.notify()
        let sent = Array(board.interrupts.messages.dropFirst(count))
        #expect(sent == (board.msi.isEnabled ? [board.programmed] : []))
      }
    }
  }

  @Test func enabledFunctionSendsItsMessageEachTime() throws {
    let board = try Board()
    board.program(first)
    #expect(board.interrupts.routeCount == 0)
    board.setEnabled(true)
    #expect(board.msi.isEnabled)
    board.msi.notify()
    board.msi.notify()
    #expect(board.interrupts.messages == [first, first])
    #expect(board.interrupts.routeCount == 1)
  }

  @Test func disabledFunctionSendsNothingAndRemembersNothing() throws {
    let board = try Board()
    board.program(first)
    board.msi.notify()
    board.setEnabled(true)
    #expect(board.interrupts.messages.isEmpty)
    board.setEnabled(false)
    #expect(!board.msi.isEnabled)
    board.msi.notify()
    board.setEnabled(true)
    #expect(board.interrupts.messages.isEmpty)
    board.msi.notify()
    #expect(board.interrupts.messages == [first])
  }

  @Test func messageChangesWhileEnabledOnTheSameRoute() throws {
    let board = try Board()
    board.program(first)
    board.setEnabled(true)
    board.msi.notify()
    board.program(second)
    board.msi.notify()
    board.write(12, 1, 0x77)
    board.msi.notify()
    board.write(8, 4, 0xffff_ffff)
    board.msi.notify()
    #expect(
      board.interrupts.messages == [
        first, second, MSIMessage(address: 0xfee0_2000, data: 0x77),
        MSIMessage(address: 0xffff_ffff_fee0_2000, data: 0x77),
      ])
    #expect(board.interrupts.routeCount == 1)
  }

  @Test func messageChangedWhileDisabledIsSentWhenEnabled() throws {
    let board = try Board()
    board.program(first)
    board.setEnabled(true)
    board.setEnabled(false)
    board.program(second)
    board.setEnabled(true)
    board.msi.notify()
    #expect(board.interrupts.messages == [second])
  }

  @Test func severalVectorsCannotBeAllocated() throws {
    let board = try Board()
    // Multiple message enable (bits 6:4) asks for 32 vectors; there is one.
    board.write(2, 2, 0x51)
    #expect(board.read(2, 2) == 0x81)
  }

  @Test func pinIsReleasedWhileEnabledAndComesBackAfterwards() throws {
    let board = try Board()
    board.function.setInterruptLine(asserted: true)
    #expect(board.showsInterrupt)
    board.setEnabled(true)
    #expect(!board.showsInterrupt)
    #expect(board.interrupts.levels == [.init(line: 20, asserted: true), .init(line: 20, asserted: false)])
    board.function.setInterruptLine(asserted: false)
    board.function.setInterruptLine(asserted: true)
    board.function.command = PCICommand.master
    #expect(!board.showsInterrupt)
    #expect(board.interrupts.levels.count == 2)
    board.setEnabled(false)
    #expect(board.showsInterrupt)
    #expect(board.interrupts.levels.last == .init(line: 20, asserted: true))
    // Nothing was sent: the pin's level is no message.
    #expect(board.interrupts.messages.isEmpty)
  }

  @Test func pinThatWasLetGoMeanwhileStaysReleased() throws {
    let board = try Board()
    board.function.setInterruptLine(asserted: true)
    board.setEnabled(true)
    board.function.setInterruptLine(asserted: false)
    board.setEnabled(false)
    #expect(!board.showsInterrupt)
    #expect(board.interrupts.levels.count == 2)
  }

  @Test func resetDisablesAndForgetsTheMessage() throws {
    let board = try Board()
    board.program(first)
    board.setEnabled(true)
    board.function.reset()
    #expect((0..<14).map { UInt8(board.read($0, 1)) } == Self.atReset)
    #expect(!board.msi.isEnabled)
    board.msi.notify()
    board.function.setInterruptLine(asserted: true)
    #expect(board.interrupts.levels == [.init(line: 20, asserted: true)])
    // It works again after its reset, on the route that it had, and with nothing of its message.
    board.function.command = PCICommand.master
    board.setEnabled(true)
    board.msi.notify()
    board.program(second)
    board.msi.notify()
    #expect(board.interrupts.messages == [MSIMessage(address: 0, data: 0), second])
    #expect(board.interrupts.routeCount == 1)
  }

  @Test func shutdownClosesTheRouteAndSilencesTheFunction() throws {
    let routes = RouteCounter()
    let board = try Board(interrupts: routes)
    board.program(first)
    board.setEnabled(true)
    board.msi.notify()
    board.function.shutdown()
    #expect(!board.msi.isEnabled)
    board.msi.notify()
    #expect(routes.made.load(ordering: .relaxed) == 1)
    #expect(routes.closed.load(ordering: .relaxed) == 1)
    #expect(routes.sent.load(ordering: .relaxed) == 1)
  }
}

/// Counts routes and what goes through them.
private final class RouteCounter: InterruptController, @unchecked Sendable {
  let made = Atomic<Int>(0)
  let closed = Atomic<Int>(0)
  let sent = Atomic<Int>(0)

  private final class Route: InterruptRoute, @unchecked Sendable {
    override func close() { (controller as? RouteCounter)?.closed.add(1, ordering: .relaxed) }
  }

  override func makeRoute() -> InterruptRoute {
    made.add(1, ordering: .relaxed)
    return Route(controller: self)
  }
  override func send(_ message: MSIMessage) { sent.add(1, ordering: .relaxed) }
}

/// Sees whether a message comes while MSI is disabled, or is one that was never enabled.
private final class MSIWatcher: InterruptController, @unchecked Sendable {
  let isOff = Atomic<Bool>(true)
  let violations = Atomic<Int>(0)
  let sent = Atomic<Int>(0)

  override func send(_ message: MSIMessage) {
    sent.add(1, ordering: .relaxed)
    let isTorn = message.data != UInt32(truncatingIfNeeded: message.address >> 32)
    if isTorn || isOff.load(ordering: .sequentiallyConsistent) { violations.add(1, ordering: .relaxed) }
  }
}

@Suite struct MSIConcurrencyTests {
  private static let threads = 2
  private static let rounds: UInt32 = 5000

  /// Threads notify while the guest disables, changes and enables: nothing comes after a disabling write has returned,
  /// and no message is half the old one.
  @Test(.timeLimit(.minutes(2)))
  func noMessageComesWhenTheDisablingWriteHasReturned() throws {
    let watcher = MSIWatcher()
    let board = try Board(interrupts: watcher)
    let msi = board.msi
    let isOver = Atomic<Bool>(false)
    let threads = try (0..<Self.threads).map { _ in
      try HostThread(name: "notify") { while !isOver.load(ordering: .acquiring) { msi.notify() } }
    }
    for round in 1...Self.rounds {
      board.program(MSIMessage(address: UInt64(round & 0xffff) << 32, data: round & 0xffff))
      watcher.isOff.store(false, ordering: .sequentiallyConsistent)
      board.setEnabled(true)
      board.setEnabled(false)
      watcher.isOff.store(true, ordering: .sequentiallyConsistent)
    }
    watcher.isOff.store(false, ordering: .sequentiallyConsistent)
    board.setEnabled(true)
    while watcher.sent.load(ordering: .relaxed) == 0 {}
    isOver.store(true, ordering: .releasing)
    threads.forEach { $0.join() }
    #expect(watcher.violations.load(ordering: .relaxed) == 0)
  }
}
