// SPDX-License-Identifier: Apache-2.0
import EventLoop
import GuestMemory
import Machine
import Platform
import Synchronization

func makeMachine() throws -> Machine {
  let memory = GuestMemory()
  try memory.add(try GuestRegion(start: 0, byteCount: 1 << 20))
  return Machine(memory: memory, mainLoop: try EventLoop(name: "test"))
}

/// Remembers the levels of the interrupt lines, as rising and falling edges.
final class LineRecorder: InterruptController, @unchecked Sendable {
  private let state = Mutex<[(line: Int, asserted: Bool)]>([])

  /// Every change until now; for example `["+4", "-4"]`.
  var edges: [String] { state.withLock { $0.map { ($0.asserted ? "+" : "-") + String($0.line) } } }
  /// Whether the line that changed last is asserted.
  var isAsserted: Bool { state.withLock { $0.last?.asserted ?? false } }
  /// Rising edges until now.
  var rises: Int { edges.count { $0.hasPrefix("+") } }

  override func setLine(_ line: Int, asserted: Bool) { state.withLock { $0.append((line, asserted)) } }
}

/// Runs the main loop's rounds while the machine lock is held, as `Machine.run` does.
func runRound(_ machine: Machine) { machine.lock.withLock { _ = machine.mainLoop.runOnce(mayBlock: false) } }
