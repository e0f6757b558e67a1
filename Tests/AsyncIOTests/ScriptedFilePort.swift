// SPDX-License-Identifier: Apache-2.0
// A script plays the system calls that block: it decides when each call returns, and with what answer.
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import AsyncIO

/// A lock with a condition: what worker threads and the test share.
final class TestMonitor: @unchecked Sendable {
  /// A test that waits longer than this has failed.
  static let patienceSeconds = 60

  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  init() {
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  func withLock<T>(_ body: () -> T) -> T {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    let result = body()
    pthread_cond_broadcast(condition)
    return result
  }

  /// With the lock held and announcing what was changed, waits until `isSo`, for which others must take the lock.
  func wait(_ what: String, until isSo: () -> Bool) {
    pthread_cond_broadcast(condition)
    var deadline = timespec()
    clock_gettime(CLOCK_REALTIME, &deadline)
    deadline.tv_sec += Self.patienceSeconds
    while !isSo() {
      if pthread_cond_timedwait(condition, mutex, &deadline) == ETIMEDOUT {
        Issue.record("waited in vain: \(what)")
        return
      }
    }
  }
}

final class ScriptedFilePort: FilePort, @unchecked Sendable {
  enum Kind: Equatable { case read, write, sync, allocate, device }

  struct Call: Equatable {
    var kind: Kind
    var offset: Int = 0
    var byteCount: Int = 0
    /// RWF_ flags, mode of fallocate or request of ioctl.
    var flags: Int = 0
  }

  private let monitor = TestMonitor()
  private var isHeld = false
  private var released: Set<Int> = []
  private var insideCount = 0
  private var insideMost = 0
  private var script: [Int] = []
  private var calls: [Call] = []
  private var takenOffsets: [UInt64] = []
  // Answers calls that the script has nothing for.
  private let otherwise: @Sendable (Call) -> Int

  /// - Parameter otherwise: answers that are in no script; else every call does all it was asked to.
  init(otherwise: @escaping @Sendable (Call) -> Int = { $0.kind == .read || $0.kind == .write ? $0.byteCount : 0 }) {
    self.otherwise = otherwise
  }

  // MARK: For tests

  /// The next calls, in the order in which they begin, are answered by these.
  func answer(_ answers: [Int]) { monitor.withLock { script += answers } }
  /// From here on calls do not return.
  func hold() { monitor.withLock { isHeld = true } }
  /// All calls return, now and later.
  func release() { monitor.withLock { isHeld = false } }
  /// The call that is inside with this offset returns.
  func release(offset: Int) { monitor.withLock { _ = released.insert(offset) } }
  /// Waits until so many calls are inside at the same time.
  func waitUntilInside(_ count: Int) {
    monitor.withLock { monitor.wait("\(count) calls inside") { insideCount == count } }
  }
  var made: [Call] { monitor.withLock { calls } }
  var taken: [UInt64] { monitor.withLock { takenOffsets } }
  var mostInside: Int { monitor.withLock { insideMost } }

  // MARK: The calls

  override func taken(_ operation: UnsafeMutablePointer<IOOperation>) {
    let offset = operation.pointee.offset
    monitor.withLock { takenOffsets.append(offset) }
  }

  private func enter(_ call: Call) -> Int {
    monitor.withLock {
      calls.append(call)
      insideCount += 1
      insideMost = max(insideMost, insideCount)
      let answer = script.isEmpty ? otherwise(call) : script.removeFirst()
      if isHeld {
        monitor.wait("release of \(call)") { !isHeld || released.contains(call.offset) }
        released.remove(call.offset)
      }
      insideCount -= 1
      return answer
    }
  }

  private static func length(_ iovecs: UnsafePointer<iovec>?, _ count: Int32) -> Int {
    (0..<Int(count)).reduce(0) { $0 + iovecs![$1].iov_len }
  }

  override func read(_: Int32, _ iovecs: UnsafePointer<iovec>?, _ count: Int32, at offset: off_t) -> Int {
    enter(Call(kind: .read, offset: offset, byteCount: Self.length(iovecs, count)))
  }
  override func write(_: Int32, _ iovecs: UnsafePointer<iovec>?, _ count: Int32, at offset: off_t, flags: Int32) -> Int
  {
    enter(Call(kind: .write, offset: offset, byteCount: Self.length(iovecs, count), flags: Int(flags)))
  }
  override func syncData(_: Int32) -> Int { enter(Call(kind: .sync)) }
  override func allocate(_: Int32, mode: Int32, offset: off_t, byteCount: off_t) -> Int {
    enter(Call(kind: .allocate, offset: offset, byteCount: byteCount, flags: Int(mode)))
  }
  override func deviceRange(_: Int32, request: UInt, offset: off_t, byteCount: off_t) -> Int {
    enter(Call(kind: .device, offset: offset, byteCount: byteCount, flags: Int(request)))
  }
}

/// Starts threads while it may, and knows who asked.
final class ScriptedStarter: WorkerStarter, @unchecked Sendable {
  private let monitor = TestMonitor()
  private var left: Int
  private var askers: [pthread_t] = []

  /// - Parameter startsMax: how many starts succeed.
  init(startsMax: Int = .max) { left = startsMax }

  /// From here on so many starts succeed.
  func allow(_ count: Int) { monitor.withLock { left = count } }
  /// The threads that asked for another, failures included.
  var asked: [pthread_t] { monitor.withLock { askers } }

  override func start(_ body: @escaping @Sendable () -> Void) throws(SystemError) -> HostThread {
    let mayStart = monitor.withLock {
      askers.append(pthread_self())
      left -= 1
      return left >= 0
    }
    if !mayStart { throw SystemError("pthread_create", code: EAGAIN) }
    return try super.start(body)
  }
}

/// A loop, an engine on it, and a script that plays the kernel.
final class ThreadPoolBench {
  let loop: EventLoop
  let port: ScriptedFilePort
  let starter: ScriptedStarter
  let engine: ThreadPoolEngine
  let sink = RecordingSink()
  private(set) var operations: [TestOperation] = []

  init(
    workersMin: Int = 0, workersMax: Int = ThreadPoolLimits.workersMaxDefault,
    idleNs: UInt64 = ThreadPoolLimits.idleNsDefault,
    port: ScriptedFilePort = ScriptedFilePort(), starter: ScriptedStarter = ScriptedStarter()
  ) throws {
    loop = try EventLoop(name: "test")
    self.port = port
    self.starter = starter
    let limits = ThreadPoolLimits(workersMin: workersMin, workersMax: workersMax, idleNs: idleNs)
    engine = ThreadPoolEngine(loop: loop, limits: limits, port: port, starter: starter)
  }

  deinit {
    port.release()
    engine.close()
  }

  func submit(_ operation: TestOperation) {
    operations.append(operation)
    engine.submit(operation.pointer)
  }

  @discardableResult
  func submit(_ opcode: IOOpcode = .read, offset: UInt64 = 0, pieces: [Int] = [512]) -> TestOperation {
    let operation = TestOperation(opcode, offset: offset, pieces: pieces, sink: sink)
    submit(operation)
    return operation
  }

  func batch(_ body: () -> Void) {
    loop.beginBatch()
    body()
    loop.endBatch()
  }

  var results: [Int32] { sink.completed.map(\.result) }

  /// Runs the loop until so many operations have completed.
  func run(untilCompleted count: Int) {
    run("\(count) completions") { self.sink.completed.count >= count }
  }

  func run(_ what: String, until isSo: () -> Bool) {
    let timer = Watchdog(loop: loop)
    timer.arm(atNanoseconds: HostClock.nanoseconds + UInt64(TestMonitor.patienceSeconds) * 1_000_000_000)
    while !isSo() && !timer.isOver { loop.runOnce(mayBlock: true) }
    if timer.isOver { Issue.record("waited in vain: \(what)") }
    timer.cancel()
  }

  /// Waits, without running the loop, for something that workers do by themselves.
  func wait(_ what: String, until isSo: (ThreadPoolStatistics) -> Bool) {
    let deadline = HostClock.nanoseconds + UInt64(TestMonitor.patienceSeconds) * 1_000_000_000
    while !isSo(engine.statistics) {
      if HostClock.nanoseconds > deadline {
        Issue.record("waited in vain: \(what), \(engine.statistics)")
        return
      }
      sched_yield()
    }
  }

  private final class Watchdog: LoopTimer {
    private(set) var isOver = false
    override func fired() { isOver = true }
  }
}
