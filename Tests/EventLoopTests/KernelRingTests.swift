// SPDX-License-Identifier: Apache-2.0
// A real io_uring, without files.
import CURing
import Glibc
import HostSystem
import Testing

@testable import EventLoop

private let ioUringWorks: Bool = {
  do {
    _ = try KernelRing(entries: 1)
    return true
  } catch { return false }
}()

private let usableSetups: [RingSetup] = RingSetup.forSleepersInTheRing.filter { setup in
  (try? KernelRing(entries: 1, attempts: [setup])) != nil
}

@Suite(.enabled(if: ioUringWorks, "io_uring is not permitted here")) struct KernelRingTests {
  private final class TokenClient: RingClient {
    var tokens: [UInt64] = []
    override func completed(token: UInt64, result: Int32) {
      #expect(result > 0)
      tokens.append(token)
    }
  }

  @Test(arguments: usableSetups)
  func completionsBeyondTheCompletionQueueAreKeptByTheKernelAndFetched(setup: RingSetup) throws {
    // The completion queue has twice the entries: most of these overflow it.
    let entryCount: UInt32 = 4
    let ring = try KernelRing(entries: entryCount, attempts: [setup])
    let total = UInt64(entryCount) * 10
    for index in 0..<total {
      let entry = try #require(ring.nextEntry())
      io_uring_prep_nop(entry)
      entry.pointee.user_data = index
      #expect(ring.submit() == 1)
    }
    var seen: [UInt64] = []
    while let completion = ring.takeCompletion() { seen.append(completion.userData) }
    #expect(seen == Array(0..<total))
    #expect(!ring.hasCompletions)
  }

  @Test func fullSubmissionQueueHasNoEntryUntilItIsSubmitted() throws {
    let ring = try KernelRing(entries: 4)
    for _ in 0..<4 {
      let entry = try #require(ring.nextEntry())
      io_uring_prep_nop(entry)
    }
    #expect(ring.nextEntry() == nil)
    #expect(ring.submit() == 4)
    #expect(ring.nextEntry() != nil)
  }

  @Test(arguments: usableSetups.filter { !$0.contains(.deferredTaskWork) }, [LoopMonitor.poll, .epoll])
  func completionWakesALoopThatSleepsInAnotherMonitor(setup: RingSetup, monitor: LoopMonitor) throws {
    let loop = try EventLoop(name: "test", monitor: monitor)
    let ring = loop.install(try KernelRing(entries: LoopRing.entryCount, attempts: [setup]))
    let client = TokenClient()
    let number = ring.register(client)
    let event = try EventDescriptor()
    let entry = ring.takeEntry()
    io_uring_prep_poll_add(entry, event.number, UInt32(POLLIN))
    ring.enqueue(entry, client: number, token: 7)
    // The loop does not watch the eventfd; only the ring does, and what it waits for happens when the loop sleeps.
    var sleeps = 0
    loop.setSleepHooks(
      before: {
        sleeps += 1
        event.signal()
      }, after: {})
    while client.tokens.isEmpty { loop.runOnce(mayBlock: true) }
    #expect(client.tokens == [7])
    #expect(sleeps == 1)
    #expect(ring.inFlightCount == 0)
  }
}
