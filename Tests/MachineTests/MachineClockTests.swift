// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Testing

@testable import Machine

/// A timer that notes when it fires, and arms itself again where it has a period.
private final class NotingTimer: MachineTimer {
  var period: UInt64?
  var times: [UInt64] = []
  var onFire: () -> Void = {}

  override func fired() {
    times.append(clock.nanoseconds)
    if let period { arm(atNanoseconds: clock.nanoseconds + period) }
    onFire()
  }
}

@Suite(.timeLimit(.minutes(1))) struct MachineClockTests {
  private func withToldClock(_ body: (MachineClock) throws -> Void) throws {
    let machine = try makeMachine()
    machine.clock.source = .told
    try machine.lock.withLock { try body(machine.clock) }
  }

  @Test func toldClockMovesOnlyWhenItIsTold() throws {
    try withToldClock { clock in
      clock.start()
      #expect(clock.nanoseconds == 0)
      #expect(clock.advance(by: 100) == 100)
      #expect(clock.set(nanoseconds: 250) == 250)
      #expect(clock.set(nanoseconds: 10) == 250)
      #expect(clock.advance(by: .max) == .max)
    }
  }

  @Test func timersEndWithTime() throws {
    try withToldClock { clock in
      let timer = NotingTimer(clock: clock)
      timer.arm(atNanoseconds: .max)
      timer.onFire = { timer.arm(atNanoseconds: .max) }
      #expect(clock.set(nanoseconds: .max) == .max)
      #expect(timer.times == [.max])
      #expect(timer.deadline == nil)
    }
  }

  @Test func timersFireAtTheirOwnTimesOnTheWay() throws {
    try withToldClock { clock in
      let (first, second) = (NotingTimer(clock: clock), NotingTimer(clock: clock))
      second.arm(atNanoseconds: 70)
      first.arm(atNanoseconds: 30)
      first.period = 30
      clock.set(nanoseconds: 100)
      #expect(first.times == [30, 60, 90])
      #expect(second.times == [70])
      #expect(second.deadline == nil)
      #expect(clock.nextDeadline == 120)
    }
  }

  @Test func stepWithoutALengthGoesToTheNextTimer() throws {
    try withToldClock { clock in
      #expect(clock.advance(by: nil) == 0)
      let timer = NotingTimer(clock: clock)
      timer.arm(atNanoseconds: 500)
      #expect(clock.advance(by: nil) == 500)
      #expect(timer.times == [500])
    }
  }

  @Test func cancelledTimerDoesNotFire() throws {
    try withToldClock { clock in
      let timer = NotingTimer(clock: clock)
      timer.arm(atNanoseconds: 500)
      timer.cancel()
      clock.set(nanoseconds: 1000)
      #expect(timer.times.isEmpty)
    }
  }

  @Test func aJumpOverYearsEndsWhateverPeriodAGuestChose() throws {
    try withToldClock { clock in
      let timer = NotingTimer(clock: clock)
      timer.period = 1
      timer.arm(atNanoseconds: 1)
      #expect(clock.set(nanoseconds: 1 << 62) == 1 << 62)
    }
  }

  @Test func hostClockFiresTimersOfARunningMachine() throws {
    let machine = try makeMachine()
    let timer = NotingTimer(clock: machine.clock)
    timer.onFire = { machine.requestShutdown(.hostRequest) }
    machine.lock.withLock { timer.arm(atNanoseconds: 1_000_000) }
    #expect(try machine.run() == .hostRequest)
    #expect(timer.times.count == 1)
    #expect(timer.times.allSatisfy { $0 >= 1_000_000 })
  }

  @Test func clockStandsWhileTheMachineIsPaused() throws {
    let machine = try makeMachine()
    machine.lock.withLock {
      var events: [MachineEvent] = []
      machine.events.observe { events.append($0) }
      machine.resume()
      machine.pause()
      let shown = machine.clock.nanoseconds
      #expect(machine.clock.nanoseconds == shown)
      #expect(machine.runState == .paused)
      machine.pause(.ioError)
      machine.resume()
      machine.resume()
      #expect(events == [.resumed, .stopped, .resumed])
      machine.pause()
    }
  }
}
