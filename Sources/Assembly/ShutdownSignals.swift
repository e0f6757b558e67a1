// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem
import Machine

/// Turns Ctrl-C and SIGTERM into an orderly shutdown (requests in flight complete, then the process ends), and SIGCONT into
/// `Machine.resume`, which tries the requests again that stopped the machine.
public final class ShutdownSignals {
  private let descriptor: SignalDescriptor

  /// Takes over the signals; they wait until a machine is there. Main thread, before any other thread runs.
  public init() throws(SystemError) { descriptor = try SignalDescriptor([SIGINT, SIGTERM, SIGHUP, SIGCONT]) }

  /// Ends `assembled`'s machine by the signals from now on, and by those that have come already.
  public func watch(_ assembled: AssembledMachine) {
    let descriptor = descriptor
    assembled.machine.mainLoop.addReader(descriptor.number) { [unowned assembled] in
      while let number = descriptor.next() {
        if number == SIGCONT { assembled.machine.resume() } else { assembled.machine.requestShutdown(.signal(number)) }
      }
    }
  }
}
