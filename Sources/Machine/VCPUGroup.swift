// SPDX-License-Identifier: Apache-2.0
import HostSystem

/// The vCPU threads of a machine, made by an accelerator: what the machine needs to know of them to stop in order.
///
/// Each thread is inside `Machine.gate` (`enter` to `leave`), and looks at it before it lets the guest do something that
/// is no exit of the machine's; those look by themselves.
public protocol VCPUGroup: AnyObject {
  /// Starts the threads; vCPU 0 runs the guest from here on.
  func start() throws(SystemError)
  /// Makes every vCPU look at `Machine.gate` soon: it ends sleeps and leaves the guest's code. Any thread; any number of
  /// times.
  func kick()
  /// Asks every vCPU to leave the guest soon. Any thread; any number of times.
  func requestStop()
  /// Waits until every vCPU thread has ended. The caller does not hold the machine lock, as vCPUs may wait for it.
  func join()
}

extension VCPUGroup {
  /// Nothing to do where vCPUs do nothing but exits.
  public func kick() {}
}
