// SPDX-License-Identifier: Apache-2.0
import EventLoop
import HostSystem

/// A thread that runs an event loop of its own for one disk (`--iothread`).
public final class IOThread: @unchecked Sendable {
  /// The loop; it runs on this thread only.
  public let loop: EventLoop
  private var thread: HostThread?

  /// Makes the loop; the thread starts with `start`.
  public init(name: String, monitor: LoopMonitor, pollNsMax: UInt64) throws(SystemError) {
    loop = try EventLoop(name: name, monitor: monitor)
    loop.pollNsMax = pollNsMax
  }

  /// Starts the thread, once: further calls do nothing. Main thread.
  public func start() throws(SystemError) {
    if thread != nil { return }
    let loop = loop
    thread = try HostThread(name: loop.name) { loop.run() }
  }

  /// Lets the loop finish what it was handed before, ends it, and waits for the thread.
  public func stop() {
    let loop = loop
    loop.execute { loop.stop() }
    thread?.join()
    thread = nil
  }
}
