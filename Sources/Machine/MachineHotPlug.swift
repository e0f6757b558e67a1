// SPDX-License-Identifier: Apache-2.0
// Functions that leave a machine while it runs.

extension Machine {
  /// Takes a function off the PCI bus at once and out of the machine as soon as it is quiet: requests in flight are
  /// finished first. Machine lock held; any thread.
  ///
  /// Its address is free when this returns. A machine that ends meanwhile shuts the function down with the others, and
  /// `done` is not called.
  /// - Parameter done: called on the main loop, machine lock held, when the function has left and `deviceDeleted` was
  ///   posted: whoever owns what serves it closes that.
  public func eject(_ function: PCIFunction, done: @escaping () -> Void) {
    precondition(function.machine === self, "only a function of this machine can leave it")
    guard !isLeaving(function) else { return }
    // Nothing answers any more, and nothing asserts the pin: the guest cannot start the function again.
    function.configurationWrite(
      offset: PCIRegister.command, width: 2, value: UInt32(PCICommand.interruptDisable | PCICommand.master))
    pci.detach(function)
    leaving.append((function, done))
    function.quiesce()
    deviceBecameQuiet()
  }

  /// Whether the function has been ejected and is not quiet yet. Machine lock held.
  public func isLeaving(_ function: PCIFunction) -> Bool { leaving.contains { $0.function === function } }

  /// Removes the functions that have become quiet. Main loop, between rounds.
  func letQuietFunctionsGo() {
    let quiet = leaving.filter { $0.function.isQuiet }
    leaving.removeAll { $0.function.isQuiet }
    for (function, done) in quiet {
      remove(function)
      events.post(.deviceDeleted(device: function.name))
      done()
    }
  }
}
