// SPDX-License-Identifier: Apache-2.0
import Assembly
import Glibc
import HostSystem
import Machine
import Synchronization

/// A machine that a QEMU command line describes, on a thread of this process. Its clients speak qtest and QMP to it over
/// sockets that never leave the process. Any thread may make one and end it.
public final class InProcessMachine: Sendable {
  private let qtest: DescriptorSlot
  private let monitor: DescriptorSlot
  private let course: Course
  private let thread: HostThread

  /// Starts the machine; when this returns it waits for requests.
  /// - Parameter words: what the machine has, without `-accel` and without the places of its clients.
  /// - Throws: what a process would have printed, in one line.
  public init(_ words: [String]) throws {
    let plan = try QEMUPlan(words + ["-accel", "qtest", "-display", "none", "-nodefaults"])
    let qtest = try DescriptorSlot.pair()
    let monitor = try DescriptorSlot.pair()
    let course = try Course()
    self.qtest = qtest.near
    self.monitor = monitor.near
    self.course = course
    thread = try HostThread(name: "machine") { course.run(plan, qtest: qtest.far, monitor: monitor.far) }
    do {
      try course.waitUntilMade()
    } catch {
      thread.join()
      throw error
    }
  }

  /// The client's end of the qtest connection, once; the caller takes it over.
  public func takeQTestSocket() -> OwnedDescriptor? { qtest.take() }

  /// The client's end of the monitor's connection, once; the caller takes it over.
  public func takeMonitorSocket() -> OwnedDescriptor? { monitor.take() }

  /// Ends the machine and waits until nothing of it runs any more. Call it exactly once.
  public func end() {
    course.askForEnd()
    thread.join()
  }

  /// How the machine came to be, which its thread tells the one that waits for it.
  private final class Course: Sendable {
    private enum State {
      case beingMade
      case running(Machine)
      case ended
      case failed(any Error)
    }

    private let state = Mutex(State.beingMade)
    /// Signalled after `state` has left `beingMade`.
    private let changed: EventDescriptor

    init() throws { changed = try EventDescriptor() }

    /// The machine's life, on its thread.
    func run(_ plan: QEMUPlan, qtest: DescriptorSlot, monitor: DescriptorSlot) {
      do {
        guard let client = qtest.take(), let control = monitor.take() else { preconditionFailure("a second run") }
        let machine = try QEMUMachine(plan, qtest: client, monitor: control.release())
        move(to: .running(machine.assembled.machine))
        _ = try machine.run()
        move(to: .ended)
      } catch {
        move(to: .failed(error))
      }
    }

    private func move(to next: State) {
      state.withLock { $0 = next }
      changed.signal()
    }

    func waitUntilMade() throws {
      var entry = pollfd(fd: changed.number, events: Int16(POLLIN), revents: 0)
      while poll(&entry, 1, -1) < 0 {}
      if case .failed(let error) = state.withLock({ $0 }) { throw error }
    }

    func askForEnd() {
      if case .running(let machine) = state.withLock({ $0 }) { machine.requestShutdown(.hostRequest) }
    }
  }
}
