// SPDX-License-Identifier: Apache-2.0
// The exported text, read back by somebody else's parser.
import CLinux
import Foundation
import HostSystem
import Testing
import Tracing

@Suite struct ChromeTraceTests {
  private func text(_ trace: Trace) throws -> Data {
    let file = OwnedDescriptor(taking: try checked("memfd_create") { clinux_memfd_create("trace") })
    try trace.writeChromeTrace(to: file.number)
    var bytes = [UInt8](repeating: 0, count: Int(lseek(file.number, 0, SEEK_END)))
    let count = bytes.withUnsafeMutableBytes { clinux_pread(file.number, $0.baseAddress, $0.count, 0) }
    try #require(count == bytes.count)
    return Data(bytes)
  }

  private func events(_ trace: Trace) throws -> [[String: Any]] {
    let object = try #require(try JSONSerialization.jsonObject(with: text(trace)) as? [String: Any])
    return try #require(object["traceEvents"] as? [[String: Any]])
  }

  private func select(_ events: [[String: Any]], _ phase: String) -> [[String: Any]] {
    events.filter { $0["ph"] as? String == phase }
  }

  @Test func emptyTraceIsValid() throws {
    #expect(try events(Trace(threads: [])).count == 1)
    let idle = TraceThread(identifier: 3, name: "idle", events: [], droppedCount: 7)
    let object = try JSONSerialization.jsonObject(with: text(Trace(threads: [idle]))) as? [String: Any]
    #expect((object?["otherData"] as? [String: Any])?["droppedEvents"] as? Int == 7)
  }

  @Test func traceLongerThanTheBufferIsValid() throws {
    let events = (0..<20_000).map {
      TraceEvent(time: UInt64($0) * 1001, point: .queued, request: UInt64($0 % 7) << 44, value: UInt32($0))
    }
    let trace = Trace(threads: [TraceThread(identifier: 1, name: "long", events: events)])
    let instants = select(try self.events(trace), "i")
    #expect(instants.count == 20_000)
    #expect(instants.last?["ts"] as? Double == 20_018.999)
    #expect((instants.last?["args"] as? [String: Any])?["value"] as? Int == 19_999)
  }

  @Test func namesOfThreadsAreEscaped() throws {
    let name = "a\"b\\c\n\u{1}\u{1f}é"
    let trace = Trace(threads: [TraceThread(identifier: 42, name: name, events: [])])
    let names = select(try events(trace), "M").filter { $0["name"] as? String == "thread_name" }
    #expect(names.count == 1)
    #expect(names.first?["tid"] as? Int == 42)
    #expect((names.first?["args"] as? [String: Any])?["name"] as? String == name)
  }

  @Test func arrowsFollowEachRequestFromDoorbellToInterrupt() throws {
    let all = try events(lostAndFound)
    for identifier in [1, 2] {
      let flow = all.filter { $0["cat"] as? String == "flow" && $0["id"] as? Int == identifier }
      #expect(flow.map { $0["ph"] as? String } == ["s", "t", "t", "t", "t", "f"])
      #expect(flow.map { $0["tid"] as? Int } == [1, 1, 1, 2, 2, 2])
      // Counted from the first event, at 100 ns.
      #expect(flow.first?["ts"] as? Double == 0.11)
      #expect(flow.last?["ts"] as? Double == 0.32)
    }
  }

  @Test func spansShowExitsSleepsAndPhases() throws {
    let all = try events(lostAndFound)
    func spans(_ name: String) -> [[Double?]] {
      select(all, "X").filter { $0["name"] as? String == name }.map { [$0["ts"] as? Double, $0["dur"] as? Double] }
    }
    #expect(spans("device memory write") == [[0.1, 0.06]])
    #expect(spans("sleeping") == [[0, 0.2], [0.33, 0]])
    #expect(spans("awake") == [[0, 0], [0.2, 0.13]])
    func phases(_ kind: String) -> [String?] {
      select(all, kind).filter { $0["id"] as? Int == 2 }.map { $0["name"] as? String }
    }
    let names = ["parsing", "block layer", "queued", "in the kernel", "telling the guest"]
    #expect(phases("b") == ["request"] + names)
    #expect(phases("e") == names + ["request"])
    let points = select(all, "i").compactMap { $0["name"] as? String }
    #expect(
      Set(points) == ["doorbell", "request", "queued", "notified", "woken", "submitted", "completed", "interrupt"])
  }

  @Test func loopThatSleptWhenTheTraceBeganIsShownAsleep() throws {
    let trace = handmade([(10, 1, .completed, 16, 0), (20, 1, .woken, 0, 9), (50, 1, .sleeping, 0, 9)])
    let spans = select(try events(trace), "X")
    #expect(spans.map { $0["name"] as? String } == ["sleeping", "awake", "sleeping"])
    #expect(spans.map { $0["dur"] as? Double } == [0.01, 0.03, 0])
  }

  @Test func exitWhoseEndIsMissingEndsWithTheTrace() throws {
    let trace = handmade([
      (10, 0, .exit, 0, TraceExit.portRead.rawValue), (20, 0, .exit, 0, TraceExit.portWrite.rawValue),
      (30, 0, .acknowledged, 0, 1),
    ])
    let spans = select(try events(trace), "X")
    #expect(spans.map { $0["name"] as? String } == ["port read", "port write"])
    #expect(spans.map { $0["dur"] as? Double } == [0.01, 0.01])
  }

  @Test func threadThatNeitherExitsNorSleepsIsOneSpan() throws {
    let worker = TraceThread(
      identifier: 5, name: "worker",
      events: [
        TraceEvent(time: 10, point: .submitted, request: 16), TraceEvent(time: 40, point: .submitted, request: 32),
      ])
    let spans = select(try events(Trace(threads: [worker])), "X")
    #expect(spans.map { $0["name"] as? String } == ["working"])
    #expect(spans.first?["dur"] as? Double == 0.03)
  }

  @Test func fullDeviceIsReported() throws {
    let file = try OwnedDescriptor.open("/dev/full", flags: O_WRONLY)
    let error = #expect(throws: TraceWriteError.self) { try lostAndFound.writeChromeTrace(to: file.number) }
    #expect(error?.code == ENOSPC)
  }
}
