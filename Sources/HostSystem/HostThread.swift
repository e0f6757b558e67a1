// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// An operating-system thread that runs one closure and can be joined.
public final class HostThread: @unchecked Sendable {
  // Written once in init, read by join; the pthread handle itself is thread-safe.
  private var handle = pthread_t()

  private final class Start {
    let name: String
    let body: @Sendable () -> Void
    init(name: String, body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }

  /// Starts a thread named `name` (15 characters show) that runs `body` and ends.
  public init(name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
    let start = Unmanaged.passRetained(Start(name: name, body: body))
    let result = pthread_create(
      &handle, nil,
      { argument in
        let start = Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
        clinux_thread_name(start.name)
        start.body()
        return nil
      }, start.toOpaque())
    if result != 0 {
      start.release()
      throw SystemError("pthread_create", code: result)
    }
  }

  /// Waits until the thread has ended. Call exactly once.
  public func join() { pthread_join(handle, nil) }

  /// The calling thread's id as the kernel numbers it.
  public static var currentIdentifier: Int32 { clinux_gettid() }
}
