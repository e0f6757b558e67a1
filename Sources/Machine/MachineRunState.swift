// SPDX-License-Identifier: Apache-2.0

/// Whether a machine's guest runs, and why not.
public enum RunState: String, Sendable {
  /// Made to wait for `resume` before its first instruction.
  case prelaunch
  /// The guest runs.
  case running
  /// The host's user stopped it.
  case paused
  /// A request failed under the policy `stop`.
  case ioError = "io-error"
  /// The guest has ended the machine.
  case shutdown
}

extension Machine {
  /// Stops the guest, for which it waits: from here until `resume` no vCPU touches a device, memory or a doorbell, and the
  /// clock stands. Requests in flight go on.
  ///
  /// The event `stopped` is posted where it ran before. Main loop's thread, machine lock held. Inside a callback as well:
  /// the lock is given up meanwhile, but a vCPU that gets it finds the gate closed and gives it back.
  public func pause(_ state: RunState = .paused) {
    guard runState == .running else { return }
    runState = state
    stopVCPUsAtGate()
    clock.stop()
    events.post(.stopped)
  }

  /// Lets the guest run again; the event `resumed` is posted where it did not. Main loop's thread, machine lock held.
  public func resume() {
    guard runState != .running, runState != .shutdown else { return }
    runState = .running
    clock.start()
    events.post(.resumed)
    gate.open()
  }

  private func stopVCPUsAtGate() {
    gate.close()
    guard let vcpus else { return }
    vcpus.kick()
    lock.unlock()
    gate.waitUntilAllStand()
    lock.lock()
  }
}
