// SPDX-License-Identifier: Apache-2.0
import Block
import Glibc
import HostSystem
import Machine

/// Carries what the host fails from a drive's loop to its machine: an event for each failed request, and the stop of the
/// machine where the drive's policy asks for it.
enum DriveErrors {
  /// Tells `machine` of the errors of `backend`, the drive called `drive`. Before the drive has requests.
  /// - Parameter announcesStops: whether a line on standard error tells the user of a stop.
  static func watch(_ backend: BlockBackend, drive: String, of machine: Machine, announcesStops: Bool) {
    // The machine may have gone when a drive that is closed reports its last error.
    backend.onError = { [weak machine] operation, code, action in
      let event = MachineEvent.blockError(
        drive: drive, isRead: operation == .read, action: BlockErrorAction(action), code: code)
      machine?.mainLoop.execute { [weak machine] in machine?.events.post(event) }
    }
    // On the main loop the events above come first, and the line last: who answers it finds the machine stopped.
    backend.onStop = { [weak machine] operation, code in
      machine?.mainLoop.execute { [weak machine] in
        machine?.pause(.ioError)
        guard announcesStops else { return }
        StandardError.print(
          "spindle: drive \(drive): \(operation) failed: \(SystemError.text(of: code)); its requests wait, "
            + "and SIGCONT (kill -CONT \(getpid())) tries them again")
      }
    }
  }
}

extension BlockErrorAction {
  fileprivate init(_ action: ErrorAction) {
    switch action {
    case .report: self = .report
    case .ignore: self = .ignore
    case .stop: self = .stop
    }
  }
}
