// SPDX-License-Identifier: Apache-2.0
// Requests that a user holds, and waits for.
import Block

/// What is to become of requests on their way to a disk that follows `blkdebug` rules (qemu-io's commands of these names).
public enum BreakpointCommand: Equatable, Sendable {
  /// The next request that comes to an event, by QEMU's name for it, is held under `tag`, once.
  case hold(event: String, tag: String)
  /// The request that has been held longest under this name goes on.
  case resume(tag: String)
  /// Breakpoints of this name are forgotten, and what they hold goes on.
  case remove(tag: String)
  /// Waits until a request is held under this name.
  case wait(tag: String)
}

extension MachineControl {
  /// Holds requests on their way to a drive's disk, or lets them go on.
  public func debug(_ command: BreakpointCommand, drive: String, done: @escaping (ControlError?) -> Void) {
    guard let found = backend(drive: drive, node: drive) else {
      return done(ControlError("Cannot find device='' nor node-name='\(drive)'"))
    }
    let mainLoop = loop
    // Each is used on its own loop only.
    nonisolated(unsafe) let (backend, answer) = (found, done)
    backend.loop.execute {
      guard let driver = backend.debugDriver else {
        return mainLoop.execute { answer(ControlError("Operation not supported")) }
      }
      if case .wait(let tag) = command {
        return driver.whenHeld(tag: tag) { mainLoop.execute { answer(nil) } }
      }
      let failure = Self.apply(command, to: driver)
      mainLoop.execute { answer(failure) }
    }
  }

  private static func apply(_ command: BreakpointCommand, to driver: DebugDriver) -> ControlError? {
    switch command {
    case .hold(let name, let tag):
      guard let event = DebugEvent(rawValue: name), driver.setBreakpoint(at: event, tag: tag) else {
        return ControlError("no request is held at the event '\(name)'")
      }
      return nil
    case .resume(let tag): return driver.resume(tag: tag) ? nil : ControlError("nothing is held as '\(tag)'")
    case .remove(let tag):
      return driver.removeBreakpoints(tag: tag) ? nil : ControlError("there is no breakpoint '\(tag)'")
    case .wait: return nil
    }
  }

  /// Waits until nothing is under way in what a drive holds; what waits for time or for a command goes on. Runs the
  /// drive's loop meanwhile.
  public func drain(node: String, done: @escaping (ControlError?) -> Void) {
    guard let found = allNodes.first(where: { $0.configuration.id == node })?.backend else {
      return done(ControlError("Failed to find node with node-name='\(node)'"))
    }
    let mainLoop = loop
    nonisolated(unsafe) let (backend, answer) = (found, done)
    backend.loop.execute {
      // What the guest asks for meanwhile waits, or this might never end.
      backend.pause()
      backend.drainBegan()
      backend.drain()
      backend.drainEnded()
      backend.unpause()
      mainLoop.execute { answer(nil) }
    }
  }
}
