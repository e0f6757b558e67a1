// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem
import Machine

/// Turns Ctrl-C and SIGTERM into an orderly shutdown: requests in flight complete, then the process ends.
final class ShutdownSignals {
  private let descriptor: SignalDescriptor

  /// Takes over the signals; they wait until a machine is there. Main thread, before any other thread runs.
  init() throws(SystemError) { descriptor = try SignalDescriptor([SIGINT, SIGTERM, SIGHUP]) }

  /// Ends `machine` by the signals from now on, and by those that have come already.
  func watch(_ machine: Machine) {
    let descriptor = descriptor
    machine.mainLoop.addReader(descriptor.number) {
      while let number = descriptor.next() { machine.requestShutdown(.signal(number)) }
    }
  }
}
