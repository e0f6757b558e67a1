// SPDX-License-Identifier: Apache-2.0
// Tracing is one switch for the whole process, so tests that turn it on take turns.
import Synchronization
import Tracing

private let turn = Mutex<Void>(())

/// Runs `body` with tracing in the hands of the caller, and off before and after.
public func withTracing<R>(_ body: () throws -> R) rethrows -> R {
  try turn.withLock { _ in
    defer { Tracing.stop() }
    return try body()
  }
}

extension Trace {
  /// The threads of this name; other tests' threads may be recorded too.
  public func threads(named name: String) -> [TraceThread] { threads.filter { $0.name == name } }
}
