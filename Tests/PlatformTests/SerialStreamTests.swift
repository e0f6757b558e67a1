// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem
import Machine
import Platform
import Testing

/// Offers bytes as fast as the port takes them.
private final class SourceSink: SerialSink {
  var left: [UInt8] = []
  var wanted = 0

  func offer() {
    let taken = left.withUnsafeBufferPointer { port?.receive($0) ?? 0 }
    left.removeFirst(taken)
  }
  override func inputWanted() {
    wanted += 1
    offer()
  }
}

@Suite struct SerialStreamTests {
  private func send(_ board: Board, _ text: String) { for byte in text.utf8 { board.write(thr, UInt32(byte)) } }

  @Test func lineIsWrittenAtOnceWithItsNewline() throws {
    let sink = MemorySink()
    let board = try Board(sink: sink)
    send(board, "ok 1 - hello\n")
    #expect(sink.text == "ok 1 - hello\n")
    #expect(sink.writeCount == 1)
  }

  @Test func longLineIsWrittenInPieces() throws {
    let sink = MemorySink()
    let board = try Board(sink: sink)
    let text = String(repeating: "x", count: 150)
    send(board, text)
    #expect(sink.text.count == 128)
    #expect(sink.writeCount == 2)
    send(board, "\n")
    #expect(sink.text == text + "\n")
    #expect(sink.writeCount == 3)
  }

  @Test func promptWithoutNewlineIsWrittenByTheMainLoop() throws {
    let sink = MemorySink()
    let board = try Board(sink: sink)
    send(board, "login: ")
    #expect(sink.text == "")
    runRound(board.machine)
    #expect(sink.text == "login: ")
    #expect(sink.writeCount == 1)
    send(board, "again")
    runRound(board.machine)
    #expect(sink.text == "login: again")
  }

  @Test func nothingIsLostAtShutdown() throws {
    let sink = MemorySink()
    let board = try Board(sink: sink)
    board.machine.add(DebugExit())
    send(board, "last words")
    board.machine.exitPortWrite(0xf4, width: 1, value: 0)
    #expect(try board.machine.run() == .guestExit(status: 1))
    #expect(sink.text == "last words")
  }

  @Test func everyByteValuePasses() throws {
    let sink = MemorySink()
    let board = try Board(sink: sink)
    for byte in UInt32(0)...255 { board.write(thr, byte) }
    board.port.flush()
    #expect(sink.bytes == Array(0...255))
  }

  @Test(arguments: [(fcr: UInt32(0), room: 1), (1, 16)])
  func portTakesWhatThereIsRoomFor(_ row: (fcr: UInt32, room: Int)) throws {
    let board = try Board()
    board.write(fcr, row.fcr)
    #expect(board.receive(Array(0..<40)) == row.room)
    #expect(board.receive([99]) == 0)
    #expect((0..<row.room).map { _ in board.read(rbr) } == (0..<row.room).map { UInt32($0) })
    #expect(board.read(lsr) == 0x60)
    // No overrun: what did not fit was not taken.
    #expect(board.receive([]) == 0)
  }

  @Test func inputFlowsAsTheGuestReads() throws {
    let sink = SourceSink()
    let board = try Board(sink: sink)
    board.write(fcr, 0x01)
    let text = (0..<100).map { UInt8($0) }
    board.machine.lock.withLock {
      sink.left = text
      sink.offer()
    }
    #expect(sink.left.count == 84)
    var received: [UInt8] = []
    while received.count < text.count {
      while board.read(lsr) & 1 != 0 { received.append(UInt8(board.read(rbr))) }
      let wanted = sink.wanted
      runRound(board.machine)
      // The source is asked when bytes were refused before, and not when all were taken.
      #expect(sink.wanted == wanted + (received.count < text.count ? 1 : 0))
    }
    #expect(received == text)
    #expect(board.read(lsr) == 0x60)
  }

  @Test func inputIsWantedAgainAfterLoopbackAndReset() throws {
    let sink = SourceSink()
    let board = try Board(sink: sink)
    board.write(mcr, 0x10)
    board.machine.lock.withLock {
      sink.left = [1, 2]
      sink.offer()
    }
    runRound(board.machine)
    #expect(sink.wanted == 0)
    board.write(mcr, 0)
    runRound(board.machine)
    #expect(sink.wanted == 1)
    #expect(board.read(lsr) == 0x61)
    board.machine.lock.withLock { board.port.reset() }
    runRound(board.machine)
    #expect(sink.left.isEmpty)
    #expect(board.read(rbr) == 2)
  }
}

@Suite struct DescriptorSinkTests {
  /// Both ends of a pipe; `read` end first.
  private func makePipe(flags: Int32 = 0) throws -> (Int32, Int32) {
    var ends: [Int32] = [-1, -1]
    try #require(pipe(&ends) == 0)
    for end in ends { try #require(fcntl(end, F_SETFL, O_NONBLOCK | flags) == 0) }
    return (ends[0], ends[1])
  }

  private func readAll(_ descriptor: Int32) -> [UInt8] {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = read(descriptor, &buffer, buffer.count)
    return count > 0 ? Array(buffer[0..<count]) : []
  }

  @Test func outputReachesTheDescriptor() throws {
    let (input, output) = try makePipe()
    defer { close(input) }
    let board = try Board(sink: DescriptorSink(taking: OwnedDescriptor(taking: output)))
    for byte in "hello\n".utf8 { board.write(thr, UInt32(byte)) }
    #expect(readAll(input) == Array("hello\n".utf8))
  }

  @Test func fileIsEmptiedAndWritten() throws {
    var template = Array("/tmp/spindle-serial-XXXXXX".utf8CString)
    let made = mkstemp(&template)
    try #require(made >= 0)
    let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    defer {
      close(made)
      unlink(path)
    }
    #expect(write(made, "old contents, long", 18) == 18)
    let board = try Board(sink: try DescriptorSink(path: path))
    for byte in "new".utf8 { board.write(thr, UInt32(byte)) }
    board.port.flush()
    lseek(made, 0, SEEK_SET)
    #expect(readAll(made) == Array("new".utf8))
  }

  @Test func pathThatCannotBeOpenedIsAnError() {
    #expect(throws: SystemError("open", code: ENOENT)) { try DescriptorSink(path: "/nonexistent/serial") }
  }

  @Test func outputThatCannotBeWrittenIsCountedAndTheGuestGoesOn() throws {
    let full = try OwnedDescriptor.open("/dev/full", flags: O_WRONLY)
    let sink = DescriptorSink(taking: full)
    let board = try Board(sink: sink)
    for byte in "abc\n".utf8 { board.write(thr, UInt32(byte)) }
    for byte in "de\n".utf8 { board.write(thr, UInt32(byte)) }
    #expect(sink.lostBytes == 7)
    #expect(sink.failure == SystemError("write", code: ENOSPC))
    #expect(board.read(lsr) == 0x60)
  }

  @Test func slowReaderGetsEverything() throws {
    let (input, output) = try makePipe()
    defer { close(input) }
    let sink = DescriptorSink(taking: OwnedDescriptor(taking: output))
    let board = try Board(sink: sink)
    let byteCount = 200_000
    let reader = try HostThread(name: "reader") { [self] in
      // The pipe holds 64 KiB, so the writer must wait for this thread again and again.
      var total = 0
      while total < byteCount {
        let bytes = readAll(input)
        if bytes.isEmpty { sched_yield() }
        total += bytes.count
      }
    }
    for _ in 0..<byteCount { board.write(thr, 0x78) }
    board.port.flush()
    reader.join()
    #expect(sink.lostBytes == 0)
  }

  @Test func inputArrivesInOrderAndEndsAtEndOfFile() throws {
    let (input, output) = try makePipe()
    defer { close(input) }
    let sink = DescriptorSink(borrowing: 1)
    let board = try Board(sink: sink)
    board.write(fcr, 0x01)
    board.machine.lock.withLock { sink.startInput(from: input, loop: board.machine.mainLoop) }
    let text = (0..<600).map { UInt8(truncatingIfNeeded: $0) }
    #expect(write(output, text, text.count) == text.count)
    close(output)
    var received: [UInt8] = []
    while received.count < text.count {
      runRound(board.machine)
      while board.read(lsr) & 1 != 0 { received.append(UInt8(board.read(rbr))) }
    }
    #expect(received == text)
    // The end of the input is noticed once, and the descriptor no longer watched: rounds have nothing to do.
    runRound(board.machine)
    runRound(board.machine)
    #expect(board.machine.lock.withLock { board.machine.mainLoop.runOnce(mayBlock: false) } == false)
  }

  @Test func inputStopsWhenThePortLeaves() throws {
    let (input, output) = try makePipe()
    defer {
      close(input)
      close(output)
    }
    let sink = DescriptorSink(borrowing: 1)
    let board = try Board(sink: sink)
    board.machine.lock.withLock { sink.startInput(from: input, loop: board.machine.mainLoop) }
    board.machine.remove(board.port)
    #expect(write(output, "x", 1) == 1)
    runRound(board.machine)
    #expect(readAll(input) == [0x78])
  }
}
