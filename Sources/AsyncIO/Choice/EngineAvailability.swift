// SPDX-License-Identifier: Apache-2.0
import CURing
import EventLoop
import Glibc
import HostSystem

/// Whether this host lets us use an engine, found out by trying.
public struct EngineAvailability: Equatable, Sendable {
  /// The engine.
  public var kind: EngineKind
  /// Why not, in words with the way out; nil where it works.
  public var obstacle: String?
  /// What it can use of what the host offers; registered files and pinned memory only where a user of the engine asks.
  public var features: [String] = []

  /// Whether it works.
  public var isUsable: Bool { obstacle == nil }

  /// Describes an engine.
  public init(kind: EngineKind, obstacle: String? = nil, features: [String] = []) {
    self.kind = kind
    self.obstacle = obstacle
    self.features = features
  }

  /// All engines, best first. Takes a few system calls; any thread.
  public static func probeAll() -> [EngineAvailability] { EngineKind.allCases.map(probe) }

  /// Tries an engine.
  public static func probe(_ kind: EngineKind) -> EngineAvailability {
    switch kind {
    case .ioUring: return probeRing()
    case .linuxAIO: return probeAIO()
    case .threads:
      return EngineAvailability(kind: .threads, features: ["up to \(ThreadPoolLimits.workersMaxDefault) threads"])
    }
  }

  // MARK: io_uring

  private static func probeRing() -> EngineAvailability {
    do throws(SystemError) {
      let ring = try KernelRing(entries: LoopRing.entryCount, attempts: RingSetup.forSleepersInTheRing)
      if let missing = missingOperation(ring) {
        return EngineAvailability(
          kind: .ioUring, obstacle: "the kernel's io_uring lacks \(missing); use a newer kernel")
      }
      return EngineAvailability(kind: .ioUring, features: features(of: ring))
    } catch {
      return EngineAvailability(kind: .ioUring, obstacle: ringObstacle(error.code, setting: ringSetting()))
    }
  }

  private static func features(of ring: KernelRing) -> [String] {
    var list = ring.setup.isEmpty ? [] : [ring.setup.description]
    if ring.registerFileTable(count: 1) >= 0 { list.append("registered files") }
    if ring.takesTimeout { list.append("waits with a time limit") }
    return list
  }

  /// The first operation of those that the engine needs that this kernel does not know.
  private static func missingOperation(_ ring: KernelRing) -> String? {
    let needed: [(io_uring_op, String)] = [
      (IORING_OP_READV, "READV"), (IORING_OP_WRITEV, "WRITEV"), (IORING_OP_FSYNC, "FSYNC"),
      (IORING_OP_FALLOCATE, "FALLOCATE"), (IORING_OP_POLL_ADD, "POLL_ADD"), (IORING_OP_ASYNC_CANCEL, "ASYNC_CANCEL"),
    ]
    return needed.first { !ring.knows($0.0) }?.1
  }

  /// kernel.io_uring_disabled; nil where the kernel has no such switch.
  private static func ringSetting() -> Int? {
    guard let bytes = try? readWholeFile("/proc/sys/kernel/io_uring_disabled") else { return nil }
    return Int(String(decoding: bytes, as: UTF8.self).filter(\.isNumber))
  }

  /// Why io_uring_setup fails with errno `code`.
  /// - Parameter setting: kernel.io_uring_disabled.
  static func ringObstacle(_ code: Int32, setting: Int?) -> String {
    switch (code, setting) {
    case (EPERM, 2): "forbidden by the host (sysctl kernel.io_uring_disabled=2)"
    case (EPERM, 1):
      "forbidden to this user by the host (sysctl kernel.io_uring_disabled=1; kernel.io_uring_group names who may)"
    case (EPERM, _), (EACCES, _): "forbidden to this process (a seccomp filter, as containers have)"
    case (ENOSYS, _): "this kernel has no io_uring, or a seccomp filter hides it"
    case (ENOMEM, _): "not enough memory that may be locked (ulimit -l)"
    case (EMFILE, _), (ENFILE, _): "too many open files (ulimit -n)"
    default: SystemError.text(of: code)
    }
  }

  // MARK: Linux AIO

  private static func probeAIO() -> EngineAvailability {
    do throws(SystemError) {
      let port = try KernelAIO(eventCount: LinuxAIOEngine.eventsMax)
      let features = [port.isPollable ? "completions read from memory" : "completions fetched by io_getevents"]
      port.close()
      return EngineAvailability(kind: .linuxAIO, features: features)
    } catch {
      return EngineAvailability(kind: .linuxAIO, obstacle: aioObstacle(error.code))
    }
  }

  /// Why io_setup fails with errno `code`.
  static func aioObstacle(_ code: Int32) -> String {
    switch code {
    case ENOSYS: "this kernel has no Linux AIO, or a seccomp filter hides it"
    case EAGAIN: "the host's limit of events is used up (sysctl fs.aio-max-nr)"
    case EPERM, EACCES: "forbidden to this process (a seccomp filter, as containers have)"
    default: SystemError.text(of: code)
    }
  }
}
