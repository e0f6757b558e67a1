// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem
import Machine

/// Turns Ctrl-C and SIGTERM into an orderly shutdown: requests in flight complete, then the process ends.
final class ShutdownSignals {
  private let descriptor: SignalDescriptor
  private let machine: Machine

  /// Takes over the signals. Main thread, before any other thread runs.
  init(machine: Machine) throws(SystemError) {
    self.machine = machine
    let descriptor = try SignalDescriptor([SIGINT, SIGTERM, SIGHUP])
    self.descriptor = descriptor
    machine.mainLoop.addReader(descriptor.number) {
      while let number = descriptor.next() { machine.requestShutdown(.signal(number)) }
    }
  }

  /// Lets go of the loop.
  func close() { machine.mainLoop.removeReader(descriptor.number) }
}
