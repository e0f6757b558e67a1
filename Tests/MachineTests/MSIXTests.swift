// SPDX-License-Identifier: Apache-2.0
import HostSystem
import Synchronization
import Testing

@testable import Machine

/// A machine with a function whose MSI-X table is at 0xe000_0000, pending bits at 0x800 from there.
private struct Board {
  static let base: UInt64 = 0xe000_0000
  static let pending: UInt64 = 0xe000_0800
  let machine: Machine
  let interrupts = RecordingController()
  let function = TestFunction()
  let msix: MSIX
  let control: Int

  init(vectors: Int = 4, interrupts other: InterruptController? = nil) throws {
    machine = try makeMachine()
    machine.interrupts = other ?? interrupts
    function.addMSIX(vectorCount: vectors, bar: 1, tableOffset: 0, pendingOffset: 0x800)
    machine.attach(function)
    msix = try #require(function.msix)
    control = Int(function.configurationRead(offset: 0x34, width: 1)) + 2
    function.configurationWrite(offset: 0x14, width: 4, value: UInt32(Board.base))
    function.command = PCICommand.memory | PCICommand.master
  }

  func setControl(_ value: UInt32) { function.configurationWrite(offset: control, width: 2, value: value) }

  func write(_ vector: Int, _ word: Int, _ value: UInt32) {
    machine.exitMemoryWrite(Board.base + UInt64(16 * vector + 4 * word), width: 4, value: UInt64(value))
  }

  func program(_ vector: Int, _ message: MSIMessage, masked: Bool = false) {
    write(vector, 0, UInt32(truncatingIfNeeded: message.address))
    write(vector, 1, UInt32(message.address >> 32))
    write(vector, 2, message.data)
    write(vector, 3, masked ? 1 : 0)
  }
}

private let enable: UInt32 = 0x8000
private let functionMask: UInt32 = 0x4000

private func message(_ vector: Int) -> MSIMessage {
  MSIMessage(address: 0x1_fee0_0000 + UInt64(vector) << 12, data: UInt32(0x4020 + vector))
}

@Suite struct MSIXTests {
  @Test func capabilityDescribesTheTable() throws {
    let board = try Board(vectors: 5)
    let offset = board.control - 2
    #expect(board.function.configurationRead(offset: offset, width: 1) == 0x11)
    #expect(board.function.configurationRead(offset: offset + 2, width: 2) == 4)
    #expect(board.function.configurationRead(offset: offset + 4, width: 4) == 1)
    #expect(board.function.configurationRead(offset: offset + 8, width: 4) == 0x801)
    board.setControl(0xffff)
    #expect(board.function.configurationRead(offset: offset + 2, width: 2) == 0xc004)
  }

  @Test func entriesAreMaskedAtFirstAndReadBack() throws {
    let board = try Board()
    for vector in 0..<4 { #expect(board.machine.exitMemoryRead(Board.base + UInt64(16 * vector) + 12, width: 4) == 1) }
    board.program(2, message(2))
    #expect(board.machine.exitMemoryRead(Board.base + 32, width: 8) == message(2).address)
    #expect(board.machine.exitMemoryRead(Board.base + 40, width: 8) == UInt64(message(2).data))
    board.machine.exitMemoryWrite(Board.base + 48, width: 8, value: 0x1122_3344_5566_7788)
    board.machine.exitMemoryWrite(Board.base + 56, width: 8, value: 0xffff_fffe_0000_0009)
    #expect(board.machine.exitMemoryRead(Board.base + 52, width: 4) == 0x1122_3344)
    #expect(board.machine.exitMemoryRead(Board.base + 56, width: 8) == 9)
    // Beyond the last entry there is nothing.
    #expect(board.machine.exitMemoryRead(Board.base + 64, width: 4) == 0)
  }

  @Test func vectorsOfAFunctionThatIsNoBusMasterPendUntilItIsOne() throws {
    let board = try Board()
    board.program(1, message(1))
    board.setControl(enable)
    board.function.command = PCICommand.memory
    board.msix.notify(1)
    #expect(board.msix.isEnabled && board.msix.isPending(1) && board.interrupts.messages.isEmpty)
    // What the guest changes meanwhile counts when the time comes.
    board.program(1, message(2))
    board.setControl(enable | functionMask)
    board.setControl(enable)
    #expect(board.interrupts.messages.isEmpty)
    board.function.command = PCICommand.memory | PCICommand.master
    #expect(board.interrupts.messages == [message(2)] && !board.msix.isPending(1))
  }

  @Test func resetEndsBusMasteringBeforeAnythingIsSent() throws {
    let board = try Board()
    board.function.reset()
    #expect(!board.function.isBusMaster)
    board.function.command = PCICommand.memory
    board.program(0, message(0))
    board.setControl(enable)
    board.msix.notify(0)
    #expect(board.interrupts.messages.isEmpty && board.msix.isPending(0))
  }

  @Test func openVectorSendsItsMessage() throws {
    let board = try Board()
    board.program(1, message(1))
    board.setControl(enable)
    #expect(board.msix.isEnabled && !board.msix.isMasked(1) && board.msix.isMasked(0))
    board.msix.notify(1)
    board.msix.notify(1)
    #expect(board.interrupts.messages == [message(1), message(1)])
    #expect(!board.msix.isPending(1))
    // Only the vector in use has cost the accelerator a route.
    #expect(board.interrupts.routeCount == 1)
  }

  @Test(arguments: [
    (control: UInt32(0), masked: false), (enable | functionMask, false), (enable, true), (functionMask, false),
    (enable | functionMask, true),
  ])
  func closedVectorIsPendingAndSendsOnceWhenItOpens(_ row: (control: UInt32, masked: Bool)) throws {
    let board = try Board()
    board.program(3, message(3), masked: row.masked)
    board.setControl(row.control)
    board.msix.notify(3)
    board.msix.notify(3)
    #expect(board.msix.isMasked(3))
    #expect(board.interrupts.messages.isEmpty)
    #expect(board.machine.exitMemoryRead(Board.pending, width: 4) == 0b1000)
    board.setControl(enable)
    board.write(3, 3, 0)
    #expect(board.interrupts.messages == [message(3)])
    #expect(board.machine.exitMemoryRead(Board.pending, width: 8) == 0)
    board.setControl(enable | functionMask)
    board.setControl(enable)
    #expect(board.interrupts.messages.count == 1)
  }

  @Test func withdrawnNotificationIsNotSent() throws {
    let board = try Board()
    board.program(0, message(0))
    board.msix.notify(0)
    board.msix.clearPending(0)
    board.setControl(enable)
    #expect(board.interrupts.messages.isEmpty)
  }

  @Test func changedEntrySendsTheNewMessage() throws {
    let board = try Board()
    board.program(0, message(0))
    board.setControl(enable)
    board.msix.notify(0)
    board.write(0, 3, 1)
    board.msix.notify(0)
    board.program(0, message(7), masked: true)
    #expect(board.interrupts.messages == [message(0)])
    // One write of data and mask bit: the vector opens with the new data.
    board.machine.exitMemoryWrite(Board.base + 8, width: 8, value: 0x99)
    #expect(
      board.interrupts.messages == [message(0), MSIMessage(address: message(7).address, data: 0x99)])
  }

  @Test func pendingBitsAreReadOnly() throws {
    let board = try Board(vectors: 70)
    board.msix.notify(0)
    board.msix.notify(69)
    for width in [1, 2, 4, 8] {
      board.machine.exitMemoryWrite(Board.pending, width: width, value: UInt64.max)
      board.machine.exitMemoryWrite(Board.pending + 8, width: width, value: 0)
    }
    #expect(board.machine.exitMemoryRead(Board.pending, width: 8) == 1)
    #expect(board.machine.exitMemoryRead(Board.pending + 8, width: 8) == 1 << 5)
    #expect(board.machine.exitMemoryRead(Board.pending + 4, width: 4) == 0)
    #expect(board.machine.exitMemoryRead(Board.pending + 16, width: 8) == 0)
  }

  @Test(arguments: [
    (offset: UInt64(0), width: 1), (0, 2), (2, 4), (1, 8), (4, 8), (12, 8), (60, 8), (13, 1), (14, 2),
  ])
  func oddAccessesToTheTableChangeNothing(_ row: (offset: UInt64, width: Int)) throws {
    let board = try Board()
    for vector in 0..<4 { board.program(vector, message(vector), masked: true) }
    let before = (0..<8).map { board.machine.exitMemoryRead(Board.base + UInt64(8 * $0), width: 8) }
    board.machine.exitMemoryWrite(Board.base + row.offset, width: row.width, value: 0)
    #expect(board.machine.exitMemoryRead(Board.base + row.offset, width: row.width) == 0)
    #expect((0..<8).map { board.machine.exitMemoryRead(Board.base + UInt64(8 * $0), width: 8) } == before)
  }

  @Test(arguments: [-1, 4, 0xffff, Int.max, Int.min])
  func vectorThatDoesNotExistIsIgnored(_ vector: Int) throws {
    let board = try Board()
    board.setControl(enable)
    board.msix.notify(vector)
    board.msix.clearPending(vector)
    #expect(board.msix.isMasked(vector))
    #expect(!board.msix.isPending(vector))
    #expect(board.interrupts.messages.isEmpty)
  }

  @Test func resetMasksForgetsAndLeavesNothingPending() throws {
    let board = try Board()
    board.program(0, message(0))
    board.program(1, message(1), masked: true)
    board.setControl(enable)
    board.msix.notify(1)
    board.function.reset()
    #expect(!board.msix.isEnabled && board.msix.isMasked(0) && !board.msix.isPending(1))
    board.msix.notify(0)
    #expect(board.interrupts.messages.isEmpty)
    // The function works again after its reset, on the route that it had.
    board.function.configurationWrite(offset: 0x14, width: 4, value: UInt32(Board.base))
    board.function.command = PCICommand.memory | PCICommand.master
    #expect(board.machine.exitMemoryRead(Board.base, width: 8) == 0)
    #expect(board.machine.exitMemoryRead(Board.base + 12, width: 4) == 1)
    board.program(0, message(5))
    board.setControl(enable)
    #expect(board.interrupts.messages == [message(5)])
    #expect(board.interrupts.routeCount == 1)
  }

  @Test func tableLiesOverTheBlockOfASharedBAR() throws {
    let machine = try makeMachine()
    let function = TestFunction()
    let block = RecordingBlock(answer: 0x77)
    function.addBAR(4, kind: .memory64, byteCount: 0x4000, block: block)
    function.addMSIX(vectorCount: 2, bar: 4, tableOffset: 0x2000, pendingOffset: 0x3000)
    machine.attach(function)
    function.configurationWrite(offset: 0x20, width: 4, value: 0xe000_0000)
    function.command = PCICommand.memory
    #expect(machine.exitMemoryRead(0xe000_200c, width: 4) == 1)
    #expect(machine.exitMemoryRead(0xe000_3000, width: 8) == 0)
    #expect(machine.exitMemoryRead(0xe000_2020, width: 4) == 0x77)
    #expect(machine.exitMemoryRead(0xe000_0000, width: 4) == 0x77)
    function.command = 0
    #expect(!machine.memorySpace.isMapped(0xe000_2000))
  }
}

/// Knows what the guest's side has done, and sees whether an interrupt comes that must not.
private final class CheckingController: InterruptController, @unchecked Sendable {
  let isMasked = Atomic<Bool>(true)
  let notified = Atomic<Int>(0)
  let seen = Atomic<Int>(0)
  let fired = Atomic<Int>(0)
  let violations = Atomic<Int>(0)

  override func send(_ message: MSIMessage) {
    if isMasked.load(ordering: .sequentiallyConsistent) { violations.add(1, ordering: .relaxed) }
    if message.data != UInt32(truncatingIfNeeded: message.address) { violations.add(1, ordering: .relaxed) }
    fired.add(1, ordering: .relaxed)
    seen.store(notified.load(ordering: .sequentiallyConsistent), ordering: .sequentiallyConsistent)
  }
}

@Suite struct MSIXConcurrencyTests {
  private static let threads = 3
  private static let notificationsPerThread = 20_000

  /// Threads notify while the guest masks, changes and unmasks: nothing comes while a mask holds, no message is torn, and
  /// what was notified last is always seen by an interrupt in the end.
  @Test(.timeLimit(.minutes(2)), arguments: [true, false])
  func notificationsBesideMaskingAreNeitherLostNorEarly(_ byFunction: Bool) throws {
    let checking = CheckingController()
    let board = try Board(interrupts: checking)
    let msix = board.msix
    board.program(0, MSIMessage(address: 5, data: 5), masked: !byFunction)
    board.setControl(byFunction ? enable | functionMask : enable)
    let done = Atomic<Int>(0)
    let mask = { (masked: Bool) in
      if !masked { checking.isMasked.store(false, ordering: .sequentiallyConsistent) }
      if byFunction {
        board.setControl(masked ? enable | functionMask : enable)
      } else {
        board.write(0, 3, masked ? 1 : 0)
      }
      if masked { checking.isMasked.store(true, ordering: .sequentiallyConsistent) }
    }
    try withThreads {
      for _ in 0..<MSIXConcurrencyTests.notificationsPerThread {
        checking.notified.add(1, ordering: .sequentiallyConsistent)
        msix.notify(0)
      }
      done.add(1, ordering: .sequentiallyConsistent)
    } while: {
      var round: UInt32 = 0
      while done.load(ordering: .sequentiallyConsistent) < MSIXConcurrencyTests.threads {
        round += 1
        mask(false)
        mask(true)
        board.write(0, 0, round)
        board.write(0, 2, round)
      }
    }
    mask(false)
    #expect(checking.violations.load(ordering: .relaxed) == 0)
    #expect(!msix.isPending(0))
    #expect(checking.fired.load(ordering: .relaxed) >= 1)
    #expect(
      checking.seen.load(ordering: .sequentiallyConsistent)
        == MSIXConcurrencyTests.threads * MSIXConcurrencyTests.notificationsPerThread)
  }

  private func withThreads(_ body: @escaping @Sendable () -> Void, while other: () -> Void) throws {
    let threads = try (0..<MSIXConcurrencyTests.threads).map { _ in try HostThread(name: "notify") { body() } }
    other()
    threads.forEach { $0.join() }
  }
}
