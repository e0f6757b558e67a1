import EventLoop
import Glibc
// SPDX-License-Identifier: Apache-2.0
// The stall that a trace shows, and its pictures.
import GuestDrivers
import Pictures
import Testing
import Tracing

@testable import WakeupLab

private let vcpu = 0
private let loop = 1

/// Two sleeps of a loop for which a vCPU has queued something; the second lasts longer. Times in microseconds.
private func trace(secondWake: UInt64 = 480_000) -> Trace {
  let write = TraceExit.memoryWrite.rawValue
  let entry = TraceQueueing.entry.rawValue
  let lines: [(UInt64, Int, TracePoint, UInt64, UInt32)] = [
    (10, loop, .sleeping, 0, 9),
    (20, vcpu, .exit, 0, write), (21, vcpu, .doorbell, 0, 1), (22, vcpu, .request, 0x1000, 5),
    (23, vcpu, .queued, 0x1000, entry), (24, vcpu, .exit, 0, 0),
    (60, loop, .woken, 0, 9), (62, loop, .submitted, 0, 1), (64, loop, .sleeping, 0, 9), (164, loop, .woken, 0, 9),
    (165, loop, .completed, 0x1000, 0), (166, loop, .interrupt, 0, 5), (168, loop, .sleeping, 0, 9),
    (1020, vcpu, .exit, 0, write), (1021, vcpu, .doorbell, 0, 3), (1022, vcpu, .request, 0x2000, 5),
    (1023, vcpu, .queued, 0x2000, entry), (1024, vcpu, .request, 0x3000, 5), (1025, vcpu, .queued, 0x3000, entry),
    (1026, vcpu, .exit, 0, 0),
    (secondWake, loop, .woken, 0, 9), (secondWake + 2, loop, .submitted, 0, 2), (secondWake + 4, loop, .sleeping, 0, 9),
    (secondWake + 104, loop, .woken, 0, 9), (secondWake + 105, loop, .completed, 0x2000, 0),
    (secondWake + 106, loop, .completed, 0x3000, 0), (secondWake + 107, loop, .interrupt, 0, 5),
    (secondWake + 109, loop, .sleeping, 0, 9),
  ]
  var threads = ["vcpu-0", "main"].enumerated().map {
    TraceThread(identifier: Int32($0 + 1), name: $1, events: [])
  }
  for (time, thread, point, request, value) in lines {
    threads[thread].events.append(TraceEvent(time: time * 1000, point: point, request: request, value: value))
  }
  return Trace(threads: threads)
}

@Suite struct StallTests {
  @Test func theLongestStallIsFoundWithItsRequests() throws {
    let stall = try #require(Stall(trace()))
    #expect(stall.vcpu == vcpu && stall.loop == loop)
    #expect(stall.queued == 1_023_000)
    #expect(stall.woken == 480_000_000)
    #expect(stall.requests.map(\.request) == [0x2000, 0x3000])
    #expect(stall.window == 923_000...480_207_000)
  }

  @Test func aTraceInWhichNobodyWaitedForALoopHasNone() {
    #expect(Stall(Trace(threads: [])) == nil)
    let asleep = Trace(threads: [
      TraceThread(
        identifier: 1, name: "main",
        events: [
          TraceEvent(time: 1, point: .sleeping, value: 9), TraceEvent(time: 5, point: .woken, value: 9),
        ])
    ])
    #expect(Stall(asleep) == nil)
  }

  @Test func timelineShowsWhoDidWhatAroundTheGap() throws {
    let picture = try #require(StallPicture(trace()))
    let timeline = picture.timeline(of: WakeupScenario(interface: .ahci, policy: .never), requestBytes: 128 << 10)
    #expect(timeline.lanes.map(\.name) == ["vCPU", "main loop", "kernel"])
    #expect(timeline.title.contains("lost wakeup"))
    #expect(timeline.gap?.queued == 1_023_000)
    #expect(timeline.gap?.woken == 480_000_000)
    #expect(timeline.lanes[0].spans.map(\.label) == ["", "doorbell", "waits for the interrupt", ""])
    #expect(
      timeline.lanes[1].spans.map(\.label) == ["asleep", "submits", "asleep", "completes, interrupts", "asleep"])
    #expect(timeline.lanes[2].spans.map(\.label) == ["reads 2 \u{d7} 128 KiB"])
    #expect(timeline.arrows.count == 4)
  }

  @Test(.enabled(if: (try? Fonts()) != nil, "fonts-dejavu-core is not installed"))
  func bothPicturesAreWrittenBesideEachOther() throws {
    let folder = "/var/tmp/spindle-pictures-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
    try #require(mkdir(folder, 0o700) == 0)
    defer {
      unlink(folder + "/run.png")
      unlink(folder + "/run-latency.png")
      rmdir(folder)
    }
    let pictures = try WakeupPictures(path: folder + "/run.png")
    var outcome = Reproduction.Outcome()
    outcome.trace = trace()
    var figures = WakeupFigures()
    let latency = LatencySummary(count: 10, p50: 100_000, p99: 200_000, p999: 300_000, max: 400_000)
    figures.steps = [WakeupStep(name: LatencyPicture.step, latency: latency)]
    outcome.rows = [(WakeupScenario(interface: .ahci, policy: .never, publishedSeconds: 25.76), figures)]
    #expect(
      try pictures.write(outcome, parameters: ThinkingParameters()) == [
        folder + "/run.png", folder + "/run-latency.png",
      ])
    for name in ["/run.png", "/run-latency.png"] { #expect(access(folder + name, R_OK) == 0) }
  }

  @Test func publishedRunTimeIsShownPerBatchAndForThePublishedWorkloadOnly() throws {
    var outcome = Reproduction.Outcome()
    var figures = WakeupFigures()
    let latency = LatencySummary(count: 10, p50: 1, p99: 2, p999: 3, max: 4)
    figures.steps = [WakeupStep(name: LatencyPicture.step, latency: latency)]
    outcome.rows = [(WakeupScenario(interface: .ahci, policy: .never, publishedSeconds: 25.76), figures)]
    let published = try #require(LatencyPicture.plot(outcome, parameters: ThinkingParameters()))
    // (25.76 s - 1.088 s of thoughts) / 64 batches.
    #expect(published.references.map(\.nanoseconds) == [385_500_000])
    var other = ThinkingParameters()
    other.batchCount = 8
    #expect(LatencyPicture.plot(outcome, parameters: other)?.references.isEmpty == true)
  }
}
