// SPDX-License-Identifier: Apache-2.0
// The life of a machine: its main loop, reset, and the shutdown that loses nothing.
import EventLoop
import HostSystem

extension Machine {
  // MARK: Requests. Any thread, machine lock not needed.

  /// Asks the machine to end, as far as `shutdownPolicy` lets it; the first reason counts, and `run` returns it. Any thread,
  /// any number of times.
  public func requestShutdown(_ reason: ShutdownReason) {
    switch reason {
    case .powerOff, .reset, .hostReset:
      if requests.pausesAtShutdown.load(ordering: .relaxed) { return requests.askForHalt(reason) }
    case .guestExit, .signal, .guestFault, .hostRequest: break
    }
    requests.askForShutdown(reason)
  }

  /// What becomes of the process when the guest ends the machine. Set on the main loop's thread, or before the machine
  /// runs; read by any.
  public var shutdownPolicy: ShutdownPolicy {
    get { requests.pausesAtShutdown.load(ordering: .relaxed) ? .pause : .end }
    set { requests.pausesAtShutdown.store(newValue == .pause, ordering: .relaxed) }
  }

  /// Why the machine is to end; nil while nothing has asked for it. Any thread.
  public var shutdownReason: ShutdownReason? { requests.reason }

  /// Asks for a reset, as a guest does: what happens is up to `resetPolicy`. Any thread.
  public func requestReset() {
    switch resetPolicy {
    case .shutdown: requestShutdown(.reset)
    case .resetDevices: requests.askForReset()
    }
  }

  /// Asks for a reset as the host's user does, with the same policy. Main loop's thread, machine lock held.
  public func requestHostReset() {
    switch resetPolicy {
    case .shutdown: requestShutdown(.hostReset)
    case .resetDevices:
      requests.resetIsForHost = true
      requests.askForReset()
    }
  }

  /// Makes a sleeping main loop look again at `Device.isQuiet`: for a device that became quiet on another thread.
  /// Any thread; the device must still be part of the machine when this returns.
  public func deviceBecameQuiet() { requests.wakeForQuiet() }

  /// Has `settled` called: a device does not settle any more. Any thread; the device must still be part of the machine when
  /// this returns.
  public func deviceSettled() { requests.settled.schedule() }

  // MARK: The main loop

  /// Runs the machine on this thread until a shutdown is requested, then ends it in order: stops the vCPUs, drains and
  /// shuts down every device. Call it once.
  ///
  /// It starts the vCPUs once the loop is this thread's, so that nothing they queue is taken for the loop's own. The thread
  /// holds the machine lock except while the loop sleeps, and lets waiting vCPUs have it between rounds of a loop that
  /// never sleeps.
  /// - Parameter startsPaused: the guest waits for `resume`.
  /// - Returns: the first reason that was given.
  /// - Throws: why the vCPUs could not be started; the machine has ended in order then.
  public func run(startsPaused: Bool = false) throws(SystemError) -> ShutdownReason {
    lock.lock()
    defer { lock.unlock() }
    mainLoop.claim()
    mainLoop.setSleepHooks(before: { [lock] in lock.unlock() }, after: { [lock] in lock.lock() })
    defer {
      mainLoop.release()
      mainLoop.removeSleepHooks()
    }
    let failure = start(paused: startsPaused)
    while !requests.shutdownIsDue {
      runLoopRound()
      if requests.takeReset() { resetDevices() }
      if let reason = requests.takeHalt() { halt(reason) }
    }
    end()
    if let failure { throw failure }
    guard let reason = requests.reason else { preconditionFailure("a shutdown has a reason") }
    return reason
  }

  /// - Returns: why the vCPUs could not be started; the machine is asked to end then.
  private func start(paused: Bool) -> SystemError? {
    if paused { gate.close() } else { resume() }
    // A group that fails half way waits for the vCPUs that it has started, and those may wait for the lock.
    lock.unlock()
    defer { lock.lock() }
    do {
      try vcpus?.start()
      return nil
    } catch {
      requestShutdown(.guestFault)
      return error
    }
  }

  private func end() {
    if let reason = requests.reason { events.post(.shutdown(reason)) }
    stopVCPUs()
    runState = .shutdown
    drain()
    // Younger devices may use older ones, so they leave first.
    for device in devices.reversed() { device.shutdown() }
    clock.stop()
    // What devices scheduled last runs while they are still alive.
    mainLoop.runOnce(mayBlock: false)
  }

  /// Stops the guest for good; `run` goes on.
  private func halt(_ reason: ShutdownReason) {
    events.post(.shutdown(reason))
    pause(.shutdown)
  }

  private func runLoopRound() {
    mainLoop.runOnce(mayBlock: true)
    if !leaving.isEmpty { letQuietFunctionsGo() }
    if lock.isContended { lock.yield() }
  }

  /// Stops taking requests and runs the loop until the last one is done.
  private func drain() {
    for device in devices { device.quiesce() }
    while !devices.allSatisfy(\.isQuiet) { runLoopRound() }
  }

  /// Drains first: after a reset no late completion reaches guest memory.
  private func resetDevices() {
    drain()
    for device in devices { device.reset() }
    for device in devices { device.resume() }
    // It begins anew when it is let run.
    if runState != .running { runState = .prelaunch }
    events.post(.reset(byGuest: !requests.resetIsForHost))
    requests.resetIsForHost = false
  }

  private func stopVCPUs() {
    guard let vcpus else { return }
    vcpus.requestStop()
    // Those who stand there do not wait for a `resume` any more.
    gate.end()
    // A vCPU may wait for the lock to finish its last exit.
    lock.unlock()
    vcpus.join()
    lock.lock()
  }
}
