// SPDX-License-Identifier: Apache-2.0

/// A bus whose processor can do nothing for a while.
public protocol SleepingBus: Bus {
  /// Lets so many nanoseconds pass, at least; the processor does not look at the machine meanwhile.
  /// - Returns: false where the machine is going away and the program must unwind.
  func sleep(nanoseconds: UInt64) -> Bool
  /// A clock that never goes back, in nanoseconds since some moment.
  var nanoseconds: UInt64 { get }
}

/// What a thinking load does.
public struct ThinkingParameters: Equatable, Sendable {
  /// Bytes that are read in all, a multiple of `requestBytes`.
  public var totalBytes: UInt64 = 128 << 20
  /// Bytes of each request, a multiple of 512.
  public var requestBytes: UInt32 = 128 << 10
  /// Requests that are submitted together; at most the queue's depth.
  public var batchCount = 16
  /// Nanoseconds of thought before each batch.
  public var batchThinkNs: UInt64 = 1_000_000
  /// Nanoseconds of thought after each completion.
  public var completionThinkNs: UInt64 = 1_000_000

  /// The published workload.
  public init() {}

  /// How many requests there are.
  public var requestCount: UInt64 { totalBytes / UInt64(requestBytes) }
  /// How long the guest thinks in all.
  public var thinkNs: UInt64 {
    let batches = (requestCount + UInt64(batchCount) - 1) / UInt64(batchCount)
    return batches * batchThinkNs + requestCount * completionThinkNs
  }
  /// Bytes of RAM that the buffers take.
  public var bufferBytes: UInt64 { UInt64(requestBytes) * UInt64(batchCount) }
}

/// A load with think time: the workload that showed the lost wakeup of QEMU's AHCI (February 2026).
///
/// Batches of requests read through the disk in order. The guest thinks before it submits each batch and after it has
/// processed each completion, so the machine's main loop goes to sleep between them.
public struct ThinkingLoad<Queue: DiskQueue> where Queue.B: SleepingBus {
  /// What is done.
  public typealias Parameters = ThinkingParameters

  private let bus: Queue.B
  private let queue: Queue
  private let parameters: Parameters

  /// Prepares the load on an idle queue.
  /// - Returns: nil where a batch is empty or deeper than the queue, or a request is not whole sectors.
  public init?(bus: Queue.B, queue: Queue, parameters: Parameters, buffers: UInt64) {
    guard parameters.batchCount > 0, parameters.batchCount <= queue.depth, parameters.requestBytes > 0,
      parameters.requestBytes % 512 == 0, queue.inFlightCount == 0
    else { return nil }
    self.bus = bus
    self.queue = queue
    self.parameters = parameters
    for slot in 0..<parameters.batchCount {
      queue.prepare(
        slot: slot, writes: false, address: buffers + UInt64(slot) * UInt64(parameters.requestBytes),
        byteCount: parameters.requestBytes)
    }
  }

  /// Runs the load to its end.
  /// - Returns: how many requests failed.
  public func run() throws(DriverError) -> UInt64 {
    try queue.checkIdle()
    let sectorsPerRequest = UInt64(parameters.requestBytes / 512)
    var failures: UInt64 = 0
    var next: UInt64 = 0
    while next < parameters.requestCount {
      try think(parameters.batchThinkNs)
      let count = min(UInt64(parameters.batchCount), parameters.requestCount - next)
      for slot in 0..<Int(count) {
        queue.submit(slot: slot, sector: next * sectorsPerRequest)
        next += 1
      }
      queue.kick()
      for _ in 0..<count {
        let slot = try queue.waitForSlot()
        if !queue.hasSucceeded(slot) {
          failures += 1
        }
        try think(parameters.completionThinkNs)
      }
    }
    return failures
  }

  /// The thoughts of a run alone: what it takes without any I/O.
  public static func think(on bus: Queue.B, _ parameters: Parameters) throws(DriverError) {
    var left = parameters.requestCount
    while left > 0 {
      let count = min(UInt64(parameters.batchCount), left)
      guard bus.sleep(nanoseconds: parameters.batchThinkNs) else { throw .machineStopped }
      for _ in 0..<count {
        guard bus.sleep(nanoseconds: parameters.completionThinkNs) else { throw .machineStopped }
      }
      left -= count
    }
  }

  private func think(_ nanoseconds: UInt64) throws(DriverError) {
    guard bus.sleep(nanoseconds: nanoseconds) else { throw .machineStopped }
  }
}
