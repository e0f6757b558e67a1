// SPDX-License-Identifier: Apache-2.0
// A backend that moves between loops on two threads while it works.
import EventLoop
import Glibc
import HostSystem
import Synchronization
import Testing

@testable import AsyncIO
@testable import Block

/// A loop on a thread of its own.
private final class LoopThread: @unchecked Sendable {
  let loop: EventLoop
  let identifier = Atomic<Int32>(0)
  private var thread: HostThread?

  init(_ name: String) throws {
    loop = try EventLoop(name: name)
    let isUp = Flag()
    thread = try HostThread(name: name) { [loop, self] in
      identifier.store(HostThread.currentIdentifier, ordering: .sequentiallyConsistent)
      isUp.raise()
      loop.run()
    }
    isUp.wait()
  }

  func stop() {
    loop.execute { [loop] in loop.stop() }
    thread?.join()
    thread = nil
  }
}

/// One thread waits until another one raises it.
final class Flag: @unchecked Sendable {
  // A semaphore may be posted and waited for by any thread.
  private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
  init() { sem_init(semaphore, 0, 0) }
  deinit {
    sem_destroy(semaphore)
    semaphore.deallocate()
  }
  func raise() { sem_post(semaphore) }
  func wait() { while sem_wait(semaphore) != 0 {} }
}

/// Keeps requests in flight, and moves its backend to and fro. Everything on the thread that the backend belongs to.
private final class Mover: TestClient, @unchecked Sendable {
  static let requestCount = 32
  static let moveCount = 100

  let threads: [LoopThread]
  let backend: BlockBackend
  let isOver = Flag()
  private var submitted = [Int](repeating: 0, count: requestCount)
  private var answered = [Int](repeating: 0, count: requestCount)
  private(set) var mistakes: [String] = []
  private var position = 0
  private var moves = 0
  private var isEnding = false

  init(_ threads: [LoopThread], _ driver: BlockDriver) {
    self.threads = threads
    backend = BlockBackend(driver: driver, loop: threads[0].loop, configuration: BlockConfiguration())
  }

  var completedEach: [Int] { answered }
  var isBalanced: Bool { submitted == answered && backend.inFlight == 0 }

  func start() {
    for slot in 0..<Self.requestCount {
      let operations: [BlockOperation] = [.read, .write, .read, .flush]
      let request = TestRequest(
        operations[slot % 4], offset: UInt64(slot) * 512, pieces: slot % 4 == 3 ? [] : [512], client: self)
      request.pointer.pointee.slot = Int32(slot)
      submitted[slot] += 1
      backend.submit(request.pointer)
    }
    move()
  }

  override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
    checkThread("completion")
    let slot = Int(request.pointee.slot)
    answered[slot] += 1
    if answered[slot] != submitted[slot] { mistakes.append("request \(slot) completed twice") }
    if request.pointee.result != 0 { mistakes.append("request \(slot): \(request.pointee.result)") }
    if isEnding { return }
    submitted[slot] += 1
    backend.submit(request)
  }

  private func checkThread(_ what: String) {
    let wanted = threads[position].identifier.load(ordering: .relaxed)
    if HostThread.currentIdentifier != wanted { mistakes.append("\(what) on another thread") }
    if backend.loop !== threads[position].loop { mistakes.append("\(what) on another loop") }
  }

  private func move() {
    backend.move(to: threads[1 - position].loop) { [self] error in
      if let error { mistakes.append(error.description) }
      position = 1 - position
      checkThread("arrival")
      moves += 1
      // Some completions on this loop before the next move, so that each move finds requests under way.
      let wanted = answered.reduce(0, +) + Self.requestCount
      goOn(when: wanted)
    }
  }

  private func goOn(when wanted: Int) {
    backend.loop.execute { [self] in
      if answered.reduce(0, +) < wanted { return goOn(when: wanted) }
      if moves < Self.moveCount { return move() }
      isEnding = true
      backend.drain()
      isOver.raise()
    }
  }
}

@Suite struct MoveTests {
  private func run(_ makeDriver: (EventLoop) throws -> BlockDriver) throws {
    let threads = [try LoopThread("move-a"), try LoopThread("move-b")]
    let mover = Mover(threads, try makeDriver(threads[0].loop))
    threads[0].loop.execute { mover.start() }
    mover.isOver.wait()
    threads.forEach { $0.stop() }
    #expect(mover.mistakes == [])
    #expect(mover.isBalanced)
    // Each move waited for completions on both sides of it.
    #expect(mover.completedEach.reduce(0, +) >= Mover.moveCount * Mover.requestCount)
    #expect(mover.completedEach.allSatisfy { $0 > 0 })
  }

  @Test(arguments: [0, 20_000]) func backendMovesWhileRequestsAreInFlight(latencyNs: UInt64) throws {
    try run { _ in NullDriver(byteCount: 1 << 20, latencyNs: latencyNs) }
  }

  @Test func layersMoveWithTheirDriver() throws {
    try run { loop in
      FaultDriver(
        over: NullDriver(byteCount: 1 << 20), rules: [FaultRule(.read, .delay(ns: 10_000))], loop: loop)
    }
  }

  @Test(.enabled(if: ioUringWorks, "io_uring is not permitted here")) func fileMovesWithAnEngineOnEachLoop() throws {
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let image = try ImageFile.open(path: file.path, cache: .writeback, readOnly: false)
    let held = Held(image: consume image)
    try run { loop in
      let ready = Flag()
      let made = Made()
      loop.execute {
        made.engine = try? IOUringEngine(loop: loop)
        ready.raise()
      }
      ready.wait()
      let engine = try #require(made.engine)
      made.engine = nil
      return held.driver(engine) { (loop) throws(SystemError) in try IOUringEngine(loop: loop) }
    }
  }

  private final class Made: @unchecked Sendable { var engine: IOEngine? }

  private final class Held {
    private var image: ImageFile?
    init(image: consuming ImageFile) { self.image = consume image }
    func driver(_ engine: IOEngine, _ maker: @escaping FileDriver.EngineMaker) -> FileDriver {
      FileDriver(image: image.take()!, engine: engine, makeEngine: maker)
    }
  }

  // MARK: On one thread, step by step

  private func pair() throws -> (EventLoop, EventLoop) { (try EventLoop(name: "a"), try EventLoop(name: "b")) }

  private func settle(_ loops: EventLoop...) {
    while loops.reduce(false, { $1.runOnce(mayBlock: false) || $0 }) {}
  }

  private final class Outcome: @unchecked Sendable {
    var errors: [SystemError?] = []
  }

  @Test func driverThatCannotFollowStaysAndTheReasonIsTold() throws {
    let (a, b) = try pair()
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    for reason in [EPERM, EOPNOTSUPP] {
      let image = try ImageFile.open(path: file.path, cache: .writeback, readOnly: false)
      let engine = ScriptedEngine(loop: a)
      engine.actOnFile()
      let fails: FileDriver.EngineMaker = { (_) throws(SystemError) in throw SystemError("io_uring_setup", code: EPERM)
      }
      let driver = FileDriver(image: image, engine: engine, makeEngine: reason == EPERM ? fails : nil)
      let backend = BlockBackend(driver: driver, loop: a, configuration: BlockConfiguration())
      let client = TestClient()
      let outcome = Outcome()
      let request = TestRequest(.read, pieces: [512], client: client)
      backend.submit(request.pointer)
      backend.move(to: b) { outcome.errors.append($0) }
      #expect(client.completed.count == 1)
      settle(b, a)
      #expect(outcome.errors.map { $0?.code } == [reason])
      #expect(backend.loop === a)
      backend.submit(request.pointer)
      settle(a)
      #expect(client.results == [0, 0])
      #expect(backend.inFlight == 0)
    }
  }

  @Test func heldAndStoppedRequestsGoAlongAndBelongToTheNewLoop() throws {
    let (a, b) = try pair()
    var configuration = BlockConfiguration()
    configuration.readErrorPolicy = .stop
    let driver = HeldDriver()
    let backend = BlockBackend(driver: driver, loop: a, configuration: configuration)
    backend.onStop = { _, _ in }
    let client = TestClient()
    let stopped = TestRequest(.read, pieces: [512], client: client)
    let held = TestRequest(.read, offset: 512, pieces: [512], client: client)
    backend.submit(stopped.pointer)
    driver.completeOne(-EIO)
    backend.pause()
    backend.submit(held.pointer)
    let outcome = Outcome()
    backend.move(to: b) { outcome.errors.append($0) }
    settle(a)
    #expect(outcome.errors.isEmpty)
    settle(b)
    #expect(outcome.errors.count == 1)
    #expect(backend.loop === b)
    #expect(driver.held.isEmpty)
    backend.unpause()
    backend.resume()
    #expect(driver.held == [held, stopped].map(\.pointer))
    driver.completeAll()
    #expect(client.results == [0, 0])
  }

  @Test func refusedRequestsAreAnsweredOnTheNewLoop() throws {
    let (a, b) = try pair()
    let backend = BlockBackend(driver: NullDriver(byteCount: 1 << 20), loop: a, configuration: BlockConfiguration())
    let client = TestClient()
    backend.move(to: b) { _ in }
    settle(b)
    backend.submit(TestRequest(.read, offset: 1 << 40, pieces: [512], client: client).pointer)
    settle(a)
    #expect(client.completed.isEmpty)
    settle(b)
    #expect(client.results == [-EINVAL])
  }

  @Test func writeCacheTurnedOffOnTheWayIsFlushedOnArrival() throws {
    let (a, b) = try pair()
    let driver = HeldDriver()
    let backend = BlockBackend(driver: driver, loop: a, configuration: BlockConfiguration())
    let client = TestClient()
    backend.submit(TestRequest(.write, pieces: [512], client: client).pointer)
    driver.completeOne()
    backend.move(to: b) { _ in }
    backend.writeCacheEnabled = false
    settle(a)
    #expect(driver.held.isEmpty)
    settle(b)
    #expect(driver.held.map { $0.pointee.operation } == [.flush])
    driver.completeAll()
    #expect(backend.inFlight == 0)
  }

  @Test func wordThatTheCacheIsOffFollowsABackendThatHasMoved() throws {
    let (a, b) = try pair()
    let driver = HeldDriver()
    let backend = BlockBackend(driver: driver, loop: a, configuration: BlockConfiguration())
    let client = TestClient()
    backend.submit(TestRequest(.write, pieces: [512], client: client).pointer)
    driver.completeOne()
    // The word is in the old loop's queue when the backend leaves.
    backend.writeCacheEnabled = false
    backend.move(to: b) { _ in }
    settle(b)
    settle(a)
    settle(b)
    #expect(driver.held.map { $0.pointee.operation } == [.flush])
    driver.completeAll()
  }

  @Test func mergingGoesOnAndItsCountStays() throws {
    let (a, b) = try pair()
    let file = try TemporaryFile(TemporaryFile.pattern(1 << 16))
    let image = try ImageFile.open(path: file.path, cache: .writeback, readOnly: false)
    let engine = ScriptedEngine(loop: a)
    engine.actOnFile()
    let driver = FileDriver(
      image: image, engine: engine,
      makeEngine: { (loop) throws(SystemError) in
        let engine = ScriptedEngine(loop: loop)
        engine.actOnFile()
        return engine
      })
    let backend = BlockBackend(driver: driver, loop: a, configuration: BlockConfiguration())
    let client = TestClient()
    func readTwo() {
      backend.loop.beginBatch()
      for offset: UInt64 in [0, 512] {
        backend.submit(TestRequest(.read, offset: offset, pieces: [512], client: client).pointer)
      }
      backend.loop.endBatch()
      backend.drain()
    }
    readTwo()
    backend.move(to: b) { _ in }
    settle(b, a)
    readTwo()
    #expect(client.results == [0, 0, 0, 0])
    #expect(backend.statistics.merged == 2)
    #expect(engine.log.count == 1)
  }
}
