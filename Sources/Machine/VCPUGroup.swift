// SPDX-License-Identifier: Apache-2.0
import HostSystem

/// The vCPU threads of a machine, made by an accelerator: what the machine needs to know of them to stop in order.
public protocol VCPUGroup: AnyObject {
  /// Starts the threads; vCPU 0 runs the guest from here on.
  func start() throws(SystemError)
  /// Asks every vCPU to leave the guest soon. Any thread; any number of times.
  func requestStop()
  /// Waits until every vCPU thread has ended. The caller does not hold the machine lock, as vCPUs may wait for it.
  func join()
}
