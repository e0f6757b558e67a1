// SPDX-License-Identifier: Apache-2.0

/// Takes the latencies of a load, one by one; specialised, so that a recorder that is not enabled costs nothing.
public protocol LatencyRecorder {
  /// Whether latencies are measured at all.
  static var isEnabled: Bool { get }
  /// Takes one request's time from its submission to its reaping, in `Bus.ticks`.
  mutating func record(ticks: UInt64)
}

/// Measures no latencies.
public struct NoLatencyRecorder: LatencyRecorder {
  /// Always false.
  public static var isEnabled: Bool { false }

  /// Records nothing.
  public init() {}

  /// Does nothing.
  public mutating func record(ticks: UInt64) {}
}

/// Xorshift64 with a multiplier at the end: random enough for offsets, a handful of instructions a number.
public struct XorShift64: Sendable {
  private var state: UInt64

  /// Starts from `seed`; zero, from which the generator could not move, counts as one.
  public init(seed: UInt64) {
    state = seed == 0 ? 1 : seed
  }

  /// The next number.
  @inline(__always)
  public mutating func next() -> UInt64 {
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return state &* 0x2545_F491_4F6C_DD1D
  }

  /// The next number below `bound`, near enough to uniform for any bound that a disk has.
  @inline(__always)
  public mutating func next(below bound: UInt64) -> UInt64 {
    next().multipliedFullWidth(by: bound).high
  }
}

/// What a `BlockLoad` does.
public struct BlockLoadParameters: Sendable {
  /// Writes instead of reads.
  public var writes = false
  /// Random offsets instead of ascending ones that begin again at the end.
  public var isRandom = true
  /// Bytes of a request, a multiple of 512.
  public var byteCount: UInt32 = 4096
  /// How many requests are in flight; at most the queue's depth.
  public var depth = 16
  /// How many requests are done in all.
  public var requestCount: UInt64 = 100_000
  /// How the end of a request is learned of.
  public var waitMode: WaitMode = .poll
  /// How many completions an interrupt is asked for at once; used by virtio queues with EVENT_IDX,
  /// at most `depth`.
  public var usesPerInterrupt: UInt16 = 1
  /// What the random offsets follow from.
  public var seed: UInt64 = 1
  /// The first sector (of 512 bytes) that is touched.
  public var firstSector: UInt64 = 0
  /// How many sectors are touched from there on, at least one request's.
  public var sectorCount: UInt64 = 0

  /// Random reads of 4 KiB, 16 at once, by polling; `sectorCount` is still to be set.
  public init() {}

  /// Bytes of RAM that the buffers of the load take.
  public var bufferBytes: UInt64 { UInt64(byteCount) * UInt64(depth) }
}

/// What a `BlockLoad` did.
public struct BlockLoadResult: Equatable, Sendable {
  /// Requests that ended.
  public var completedCount: UInt64 = 0
  /// Requests that ended with an error.
  public var errorCount: UInt64 = 0
  /// Notifications that were written.
  public var notificationCount: UInt64 = 0
  /// Sweeps that found something.
  public var sweepCount: UInt64 = 0
  /// Waits: halts in interrupt mode, pauses in poll mode.
  public var waitCount: UInt64 = 0
  /// From the first submission to the last reaping, in `Bus.ticks`.
  public var ticks: UInt64 = 0
}

/// A load on one queue of a disk: reads or writes of one size at one depth.
///
/// Each sweep takes everything that the device has done, submits as many requests again, and notifies once, if the
/// device wants that. Slots and buffers are prepared before the first request; what a request writes is up to the queue:
/// a sector, a status byte and a ring element for virtio-blk, a command FIS for AHCI.
public struct BlockLoad<Queue: DiskQueue> {
  let bus: Queue.B
  let queue: Queue
  let parameters: BlockLoadParameters
  private let blockCount: UInt64
  private let sectorsPerBlock: UInt64

  /// Prepares a load on an idle queue.
  ///
  /// - Parameters:
  ///   - bus: the bus of the processor that will run the load and owns the queue.
  ///   - queue: an idle queue of a started device.
  ///   - parameters: what to do.
  ///   - buffers: `BlockLoadParameters.bufferBytes` bytes of RAM, aligned as the disk wants it; they may be used again by later loads.
  /// - Returns: nil where the parameters are impossible: a depth of 0 or more than the queue's, a size of 0 or not a
  ///   multiple of 512, or fewer sectors than one request takes.
  public init?(bus: Queue.B, queue: Queue, parameters: BlockLoadParameters, buffers: UInt64) {
    let sectors = UInt64(parameters.byteCount / 512)
    guard parameters.depth > 0, parameters.depth <= queue.depth, sectors > 0, parameters.byteCount % 512 == 0,
      parameters.sectorCount >= sectors, parameters.usesPerInterrupt > 0,
      Int(parameters.usesPerInterrupt) <= parameters.depth, queue.inFlightCount == 0
    else {
      return nil
    }
    self.bus = bus
    self.queue = queue
    self.parameters = parameters
    sectorsPerBlock = sectors
    blockCount = parameters.sectorCount / sectors
    for slot in 0..<parameters.depth {
      queue.prepare(
        slot: slot, writes: parameters.writes, address: buffers + UInt64(slot) * UInt64(parameters.byteCount),
        byteCount: parameters.byteCount)
    }
  }

  /// Runs the load without measuring latencies.
  public func run() throws(DriverError) -> BlockLoadResult {
    var recorder = NoLatencyRecorder()
    return try run(recorder: &recorder)
  }

  /// Runs the load to its end; nothing is in flight then, unless an error is thrown.
  public func run<R: LatencyRecorder>(recorder: inout R) throws(DriverError) -> BlockLoadResult {
    let queue = self.queue
    try queue.checkIdle()
    let starts = UnsafeMutablePointer<UInt64>.allocate(capacity: parameters.depth)
    starts.initialize(repeating: 0, count: parameters.depth)
    defer { starts.deallocate() }
    var offsets = Offsets(parameters, blockCount: blockCount, sectorsPerBlock: sectorsPerBlock)
    var result = BlockLoadResult()
    let notificationsBefore = queue.notificationCount
    let waitsBefore = queue.waitCount
    let requestCount = parameters.requestCount
    let begin = bus.ticks
    var submitted: UInt64 = 0
    for slot in 0..<parameters.depth where submitted < requestCount {
      queue.submit(slot: slot, sector: offsets.next())
      starts[slot] = begin
      submitted &+= 1
    }
    queue.kick()
    while result.completedCount < requestCount {
      var count = queue.countUsed()
      if count == 0 {
        let uses = min(Int(parameters.usesPerInterrupt), queue.inFlightCount)
        try queue.waitForUsed(mode: parameters.waitMode, uses: UInt16(truncatingIfNeeded: uses))
        count = queue.countUsed()
      }
      let now = R.isEnabled ? bus.ticks : 0
      result.sweepCount &+= 1
      while count > 0 {
        guard let slot = queue.takeCounted() else {
          throw .deviceBroken
        }
        if !queue.hasSucceeded(slot) {
          result.errorCount &+= 1
        }
        if R.isEnabled {
          recorder.record(ticks: now &- starts[slot])
          starts[slot] = now
        }
        result.completedCount &+= 1
        if submitted < requestCount {
          queue.submit(slot: slot, sector: offsets.next())
          submitted &+= 1
        }
        count &-= 1
      }
      queue.kick()
    }
    result.ticks = bus.ticks &- begin
    result.notificationCount = queue.notificationCount &- notificationsBefore
    result.waitCount = queue.waitCount &- waitsBefore
    return result
  }

  /// Where the next request goes.
  private struct Offsets {
    private var random: XorShift64
    private var block: UInt64 = 0
    private let isRandom: Bool
    private let blockCount: UInt64
    private let firstSector: UInt64
    private let sectorsPerBlock: UInt64

    init(_ parameters: BlockLoadParameters, blockCount: UInt64, sectorsPerBlock: UInt64) {
      random = XorShift64(seed: parameters.seed)
      isRandom = parameters.isRandom
      self.blockCount = blockCount
      firstSector = parameters.firstSector
      self.sectorsPerBlock = sectorsPerBlock
    }

    @inline(__always)
    mutating func next() -> UInt64 {
      if isRandom {
        return firstSector &+ random.next(below: blockCount) &* sectorsPerBlock
      }
      let sector = firstSector &+ block &* sectorsPerBlock
      block &+= 1
      if block == blockCount {
        block = 0
      }
      return sector
    }
  }
}
