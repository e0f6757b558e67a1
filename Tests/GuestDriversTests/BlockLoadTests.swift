// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import Testing

@Suite struct BlockLoadTests {
  private struct CountingRecorder: LatencyRecorder {
    static var isEnabled: Bool { true }
    var count = 0
    var hasZero = false
    mutating func record(ticks: UInt64) {
      count += 1
      hasZero = hasZero || ticks == 0
    }
  }

  private func makeLoad(
    _ bus: FakeMachine, _ change: (inout BlockLoadParameters) -> Void
  ) throws -> BlockLoad<VirtioBlockQueue<FakeMachine>>? {
    let topology = PCITopology(bus: bus)
    let entry = try #require(topology.entries.first { VirtioBlockDriver<FakeMachine>.drives($0.function) })
    let driver = try VirtioBlockDriver(topology: topology, entry: entry)
    var options = VirtioBlockDriver<FakeMachine>.Options()
    options.waitMode = .poll
    try driver.start(options)
    var parameters = BlockLoadParameters()
    parameters.sectorCount = UInt64(FakeMachine.sectorCount)
    parameters.depth = 8
    parameters.requestCount = 1001
    change(&parameters)
    let bytes = max(parameters.bufferBytes, 512)
    let buffers = try #require(bus.allocate(byteCount: bytes, alignment: 4096))
    return BlockLoad(bus: bus, queue: driver.queues[0], parameters: parameters, buffers: buffers)
  }

  @Test(arguments: [(false, true), (false, false), (true, true), (true, false)])
  func everyRequestEndsOnce(writes: Bool, isRandom: Bool) throws {
    let bus = FakeMachine()
    let load = try #require(
      try makeLoad(bus) {
        $0.writes = writes
        $0.isRandom = isRandom
      })
    var recorder = CountingRecorder()
    let result = try load.run(recorder: &recorder)
    #expect(result.completedCount == 1001 && result.errorCount == 0)
    #expect(recorder.count == 1001 && !recorder.hasZero)
    #expect(result.ticks > 0)
  }

  @Test func aSweepNotifiesOnceAndASmallLoadIsExact() throws {
    let bus = FakeMachine()
    let load = try #require(try makeLoad(bus) { $0.requestCount = 24 })
    let result = try load.run()
    #expect(result.completedCount == 24 && result.notificationCount == 3 && result.sweepCount == 3)
    #expect(bus.notificationCount == 3)
  }

  @Test func lessRequestsThanTheDepthAreDone() throws {
    let load = try #require(try makeLoad(FakeMachine()) { $0.requestCount = 3 })
    #expect(try load.run().completedCount == 3)
  }

  @Test func impossibleParametersAreRefused() throws {
    func isPossible(_ change: (inout BlockLoadParameters) -> Void) throws -> Bool {
      try makeLoad(FakeMachine(), change) != nil
    }
    #expect(try isPossible { $0.depth = 16 })
    #expect(try !isPossible { $0.depth = 0 })
    #expect(try !isPossible { $0.depth = 17 })
    #expect(try !isPossible { $0.byteCount = 100 })
    #expect(try !isPossible { $0.sectorCount = 7 })
    #expect(try !isPossible { $0.usesPerInterrupt = 9 })
  }

  @Test func randomOffsetsStayBelowTheirBoundAndSpread() {
    var random = XorShift64(seed: 0)
    var seen = Set<UInt64>()
    for _ in 0..<1000 {
      let value = random.next(below: 7)
      #expect(value < 7)
      seen.insert(value)
    }
    #expect(seen.count == 7)
  }
}
