// SPDX-License-Identifier: Apache-2.0
// The kernel's completion ring, made up in memory, and the real kernel where it has Linux AIO.
import CLinuxAIO
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import AsyncIO

/// A completion ring in memory of ours.
private final class MadeUpRing {
  let header: UnsafeMutablePointer<clinuxaio_ring>
  private let events: UnsafeMutablePointer<io_event>

  init(eventCount: UInt32) {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 32 + 32 * Int(eventCount), alignment: 64)
    header = memory.bindMemory(to: clinuxaio_ring.self, capacity: 1)
    header.initialize(to: clinuxaio_ring())
    header.pointee.nr = eventCount
    header.pointee.magic = 0xa10a_10a1
    header.pointee.compat_features = 1
    header.pointee.header_length = 32
    events = (memory + 32).bindMemory(to: io_event.self, capacity: Int(eventCount))
  }

  deinit { UnsafeMutableRawPointer(header).deallocate() }

  /// What the kernel does when an operation completes.
  func put(_ data: UInt64) {
    let tail = header.pointee.tail
    events[Int(tail)] = io_event(data: data, obj: data + 1, res: Int64(data) + 2, res2: 0)
    header.pointee.tail = (tail + 1) % header.pointee.nr
  }
}

@Suite struct LinuxAIOEventRingTests {
  @Test func eventsAreTakenInOrderAcrossTheEndOfTheRing() throws {
    let memory = MadeUpRing(eventCount: 4)
    let ring = try #require(LinuxAIOEventRing(at: memory.header))
    #expect(!ring.hasEvents)
    #expect(ring.take() == nil)
    var next: UInt64 = 100
    for count in [3, 1, 2, 3, 3] {
      for index in 0..<count { memory.put(next + UInt64(index)) }
      for _ in 0..<count {
        #expect(ring.hasEvents)
        let event = try #require(ring.take())
        #expect(event.data == next && event.obj == next + 1 && event.res == Int64(next) + 2)
        next += 1
      }
      #expect(!ring.hasEvents)
      #expect(memory.header.pointee.head == memory.header.pointee.tail)
    }
  }

  @Test func placeIsGivenBackWithEachEvent() throws {
    let memory = MadeUpRing(eventCount: 4)
    let ring = try #require(LinuxAIOEventRing(at: memory.header))
    memory.header.pointee.head = 3
    memory.header.pointee.tail = 3
    memory.put(1)
    memory.put(2)
    #expect(ring.take().map { $0.data == 1 } == true)
    #expect(memory.header.pointee.head == 0)
    #expect(ring.take().map { $0.data == 2 } == true)
    #expect(memory.header.pointee.head == 1)
  }

  @Test func ringOfAnotherLayoutIsNotRead() {
    let memory = MadeUpRing(eventCount: 4)
    let good = memory.header.pointee
    let changes: [(inout clinuxaio_ring) -> Void] = [
      { $0.magic += 1 }, { $0.incompat_features = 1 }, { $0.header_length = 64 }, { $0.nr = 0 },
    ]
    for change in changes {
      var other = good
      change(&other)
      memory.header.pointee = other
      #expect(LinuxAIOEventRing(at: memory.header) == nil)
    }
    memory.header.pointee = good
    // Features that a reader may ignore do not matter.
    memory.header.pointee.compat_features = 7
    #expect(LinuxAIOEventRing(at: memory.header) != nil)
  }
}

@Suite(.enabled(if: EngineUnderTest.linuxAIO.isAvailable, "the host has no Linux AIO"))
struct KernelAIOTests {
  private let loop: EventLoop
  private let file: TestFile
  private let sink = RecordingSink()

  init() throws {
    loop = try makeWatchedLoop()
    file = try TestFile(byteCount: 1 << 20)
  }

  private func run(_ engine: IOEngine, _ operations: [TestOperation]) {
    loop.beginBatch()
    operations.forEach { engine.submit($0.pointer) }
    loop.endBatch()
    while engine.inFlightCount > 0 { loop.runOnce(mayBlock: true) }
  }

  @Test func kernelsRingIsOfTheLayoutThatIsRead() throws {
    let port = try KernelAIO(eventCount: 8)
    #expect(port.isPollable)
    #expect(!port.hasEvents)
  }

  @Test func eventsAreFetchedWhereTheRingCannotBeRead() throws {
    let memory = MadeUpRing(eventCount: 4)
    memory.header.pointee.magic = 0
    let port = try KernelAIO(eventCount: 128) { _ in UnsafeMutableRawPointer(memory.header) }
    #expect(!port.isPollable)
    #expect(!port.hasEvents)
    #expect(port.takeEvent() == nil)
    let engine = LinuxAIOEngine(port: port, loop: loop)
    let writes = (0..<100).map {
      TestOperation(.write, offset: UInt64($0) * 512, pieces: [512], sink: sink, descriptor: file.number)
    }
    // A sink that waits for the rest: what one call has fetched is there for nested rounds too.
    sink.onCompletion = { operation in
      guard operation == writes[0].pointer else { return }
      while sink.completed.count < 100 { loop.runOnce(mayBlock: true) }
    }
    run(engine, writes)
    #expect(sink.completed.count == 100)
    #expect(Set(sink.completed.map(\.operation)).count == 100)
    #expect(sink.completed.allSatisfy { $0.result == 0 })
    #expect(try file.bytes(at: 0, count: 100 * 512) == [UInt8](repeating: 0xaa, count: 100 * 512))
    engine.close()
    #expect(port.takeEvent() == nil)
  }

  @Test func ringIsReadRoundAndRound() throws {
    // Far more operations than the kernel's ring has events.
    let engine = try LinuxAIOEngine(loop: loop)
    for _ in 0..<20 {
      let reads = (0..<128).map {
        TestOperation(.read, offset: UInt64($0) * 512, pieces: [512], sink: sink, descriptor: file.number)
      }
      run(engine, reads)
      #expect(sink.completed.map(\.result) == Array(repeating: 0, count: 128))
      #expect(reads.allSatisfy { $0.bytes == [UInt8](repeating: 0, count: 512) })
      sink.completed = []
    }
    engine.close()
  }

  @Test func contextThatIsTooLargeIsRefusedWithTheKernelsAnswer() throws {
    let text = String(decoding: try readWholeFile("/proc/sys/fs/aio-max-nr"), as: UTF8.self)
    let limit = try #require(Int(text.prefix { $0.isNumber }))
    // Above fs.aio-max-nr that is EAGAIN; where an administrator has allowed absurdly many, the kernel's own bound is first.
    let kernelMax = 1 << 22
    let expected = limit < kernelMax ? EAGAIN : EINVAL
    #expect(throws: SystemError("io_setup", code: expected)) { _ = try KernelAIO(eventCount: limit + 1) }
  }

  @Test func answersOfTheKernelToASubmissionAreThoseOfTheOperations() throws {
    let engine = try LinuxAIOEngine(loop: loop)
    let good = [0, 1].map { TestOperation(.write, offset: $0 * 4096, sink: sink, descriptor: file.number) }
    let bad = TestOperation(.write, sink: sink, descriptor: -1)
    // A character device without an asynchronous write.
    let full = try OwnedDescriptor.open("/dev/full", flags: O_WRONLY)
    let refused = TestOperation(.write, sink: sink, descriptor: full.number)
    run(engine, [good[0], bad, refused, good[1]])
    let results = Dictionary(uniqueKeysWithValues: sink.completed.map { ($0.operation, $0.result) })
    #expect(results[good[0].pointer] == 0 && results[good[1].pointer] == 0)
    #expect(results[bad.pointer] == -EBADF)
    #expect(results[refused.pointer] == -EINVAL)
    engine.close()
  }

  @Test func dataSyncIsSupportedOnFilesAndNotOnPipes() throws {
    #expect(LinuxAIOEngine.supportsDataSync(descriptor: file.number))
    var ends: [Int32] = [-1, -1]
    #expect(pipe(&ends) == 0)
    let reader = OwnedDescriptor(taking: ends[0])
    let writer = OwnedDescriptor(taking: ends[1])
    #expect(!LinuxAIOEngine.supportsDataSync(descriptor: reader.number))
    #expect(!LinuxAIOEngine.supportsDataSync(descriptor: writer.number))
  }

  @Test func closingGivesTheContextAndTheEventfdBack() throws {
    let port = try KernelAIO(eventCount: 128)
    let descriptor = port.descriptor
    // Names the eventfd itself, since others may be given its number as soon as it is closed.
    let identity = try readWholeFile("/proc/self/fdinfo/\(descriptor)")
    let operation = TestOperation(.read, sink: sink, descriptor: file.number)
    let engine = LinuxAIOEngine(port: port, loop: loop)
    engine.submit(operation.pointer)
    engine.close()
    #expect(sink.completed.map(\.result) == [0])
    #expect(port.descriptor == -1)
    #expect((try? readWholeFile("/proc/self/fdinfo/\(descriptor)")) != identity)
    // A context that is gone takes nothing.
    var block: UnsafeMutablePointer<iocb>?
    #expect(port.submit(&block, count: 1) == -EINVAL)
  }
}
