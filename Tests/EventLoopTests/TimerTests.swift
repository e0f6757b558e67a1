// SPDX-License-Identifier: Apache-2.0
import HostSystem
import Testing

@testable import EventLoop

@Suite struct TimerTests {
  private final class CountingTimer: LoopTimer {
    var onFire: () -> Void = {}
    override func fired() { onFire() }
  }

  @Test func timersFireInTheOrderOfTheirDeadlines() throws {
    let loop = try EventLoop(name: "test")
    var order: [Int] = []
    let timers = (0..<3).map { index in
      let timer = CountingTimer(loop: loop)
      timer.onFire = { order.append(index) }
      return timer
    }
    let past = HostClock.nanoseconds - 1000
    timers[1].arm(atNanoseconds: past - 2)
    timers[2].arm(atNanoseconds: past - 1)
    timers[0].arm(atNanoseconds: past - 3)
    loop.runOnce(mayBlock: true)
    #expect(order == [0, 1, 2])
    #expect(timers.allSatisfy { $0.deadline == nil })
  }

  @Test func timerEndsASleep() throws {
    let loop = try EventLoop(name: "test")
    let timer = CountingTimer(loop: loop)
    timer.onFire = { loop.stop() }
    timer.arm(atNanoseconds: HostClock.nanoseconds + 1_000_000)
    loop.run()
    #expect(timer.deadline == nil)
  }

  @Test func cancelledTimerDoesNotFireEvenIfAnotherCancelsItInTheSameRound() throws {
    let loop = try EventLoop(name: "test")
    var fired = 0
    let timers = (0..<2).map { _ in CountingTimer(loop: loop) }
    for (index, timer) in timers.enumerated() {
      timer.onFire = {
        fired += 1
        timers[1 - index].cancel()
      }
      timer.arm(atNanoseconds: 1)
    }
    loop.runOnce(mayBlock: false)
    #expect(fired == 1)
  }

  @Test func timerThatIsPutOffByAnotherOfTheSameRoundWaits() throws {
    let loop = try EventLoop(name: "test")
    let first = CountingTimer(loop: loop)
    let second = CountingTimer(loop: loop)
    var order: [Int] = []
    first.onFire = {
      order.append(1)
      second.arm(atNanoseconds: UInt64.max)
    }
    second.onFire = { order.append(2) }
    first.arm(atNanoseconds: 1)
    second.arm(atNanoseconds: 2)
    loop.runOnce(mayBlock: false)
    #expect(order == [1])
    #expect(second.deadline == UInt64.max)
    second.cancel()
  }

  @Test func timerMayArmItselfAgain() throws {
    let loop = try EventLoop(name: "test")
    let timer = CountingTimer(loop: loop)
    var fires = 0
    timer.onFire = {
      fires += 1
      if fires < 3 { timer.arm(atNanoseconds: 1) } else { loop.stop() }
    }
    timer.arm(atNanoseconds: 1)
    loop.run()
    #expect(fires == 3)
  }
}
