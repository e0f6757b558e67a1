// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import Block
import EventLoop
import GuestMemory
import HostSystem

/// Makes backends out of what a user said of drives: opens the image, picks the engine, puts the layers on top.
///
/// Main thread, while a machine is put together.
final class BackendMaker {
  private let memory: GuestMemory
  /// What this host has; looked at once, for the first file.
  private lazy var engines = EngineAvailability.probeAll()
  /// What was chosen for each file, and why.
  private(set) var notes: [String] = []

  init(memory: GuestMemory) { self.memory = memory }

  /// Makes the backend of a drive that has a medium. Nothing is written to an image.
  func make(_ drive: DriveConfiguration, loop: EventLoop) throws -> BlockBackend {
    var block = BlockConfiguration()
    block.cache = drive.cache
    block.isReadOnly = drive.isReadOnly
    block.serial = drive.serial
    block.merge = drive.merge
    block.limits = drive.limits
    block.ignoresDiscard = drive.ignoresDiscard
    block.readErrorPolicy = drive.readErrorPolicy
    block.writeErrorPolicy = drive.writeErrorPolicy
    var drive = drive
    var driver = try makeDriver(&drive, loop: loop)
    block.isReadOnly = drive.isReadOnly
    if drive.isDebugged { driver = DebugDriver(over: driver, rules: drive.debugRules, loop: loop) }
    if drive.isSnapshot { driver = try makeSnapshot(over: driver, drive, loop: loop) }
    if !drive.faults.isEmpty { driver = FaultDriver(over: driver, rules: drive.faults, loop: loop) }
    if drive.zeroDetection != .off && driver.supportsWriteZeroes {
      driver = ZeroDetector(over: driver, mayUnmap: drive.zeroDetection == .unmap, loop: loop)
    }
    return BlockBackend(driver: driver, loop: loop, configuration: block)
  }

  /// Puts a temporary disk on top, which takes everything that the guest writes.
  private func makeSnapshot(
    over driver: BlockDriver, _ drive: DriveConfiguration, loop: EventLoop
  ) throws -> SnapshotDriver {
    let image = try ImageFile.temporary(byteCount: driver.byteCount)
    var temporary = drive
    temporary.id += " (snapshot)"
    // The page cache is as good a place as any for what is thrown away.
    temporary.cache = .unsafe
    temporary.engine = nil
    let facts = image.facts
    let choice = try choose(temporary, facts: facts)
    let overlay = try serve(image, facts, by: choice, temporary, loop: loop)
    return try SnapshotDriver(over: driver, overlay: overlay, loop: loop)
  }

  /// - Parameter drive: read-only afterwards where its image turns out to be so.
  private func makeDriver(_ drive: inout DriveConfiguration, loop: EventLoop) throws -> BlockDriver {
    switch drive.source {
    case .null(let byteCount, let latencyNs):
      return NullDriver(byteCount: byteCount, latencyNs: latencyNs, readsZeroes: drive.readsZeroes)
    case .memory(let byteCount):
      return try MemoryDriver(byteCount: byteCount)
    case .empty:
      throw SetupError("--drive: drive \(drive.id) has no medium; write file=PATH")
    case .file(let path):
      let image = try open(path, &drive)
      if image.unreachableBytes > 0 {
        StandardError.print(
          "spindle: \(path): its length is not a whole number of blocks; "
            + "the guest does not see the last \(image.unreachableBytes) bytes")
      }
      let facts = image.facts
      let choice = try choose(drive, facts: facts)
      return try serve(image, facts, by: choice, drive, loop: loop)
    }
  }

  /// Opens an image as the drive needs it: for writing, unless it may not be written or a snapshot takes what is.
  private func open(_ path: String, _ drive: inout DriveConfiguration) throws -> ImageFile {
    let isReadOnly = drive.isReadOnly || drive.isSnapshot
    do throws(ImageError) {
      return try ImageFile.open(
        path: path, cache: drive.cache, readOnly: isReadOnly, locks: drive.locksImage, waits: true)
    } catch {
      guard case .notWritable = error, drive.isReadOnlyWhereNecessary, !isReadOnly else { throw error }
    }
    drive.isReadOnly = true
    return try ImageFile.open(path: path, cache: drive.cache, readOnly: true, locks: drive.locksImage, waits: true)
  }

  // MARK: Engines

  private func choose(_ drive: DriveConfiguration, facts: FileFacts) throws -> EngineChoice {
    let automatic = EngineChoice.auto(facts: facts, isDirect: drive.cache.isDirect, engines: engines)
    guard let kind = drive.engine else { return automatic }
    if let refusal = EngineChoice.refusal(of: kind, isDirect: drive.cache.isDirect, engines: engines) {
      throw SetupError(
        "--drive: aio=\(kind.rawValue) cannot serve drive \(drive.id) (cache=\(drive.cache.rawValue)): \(refusal); "
          + "aio=auto would take \(automatic.kind.rawValue)")
    }
    return EngineChoice(kind: kind, reason: "asked for")
  }

  private func serve(
    _ image: consuming ImageFile, _ facts: FileFacts, by choice: EngineChoice, _ drive: DriveConfiguration,
    loop: EventLoop
  ) throws -> FileDriver {
    let kind = choice.kind
    let limits = ThreadPoolLimits(workersMax: drive.engineThreadsMax)
    let engine = try kind.makeEngine(on: loop, limits: limits)
    var features = engine.features
    if drive.pinsMemory {
      let regions = memory.regions.map { UnsafeRawBufferPointer(start: $0.host, count: Int($0.byteCount)) }
      let result = engine.pin(regions)
      features.append(
        result == 0 ? "guest memory pinned" : "guest memory not pinned (\(SystemError.text(of: -result)))")
    }
    let details = features.isEmpty ? "" : " [" + features.joined(separator: ", ") + "]"
    notes.append("drive \(drive.id): aio=\(kind.rawValue)\(details): \(choice.reason)")
    return FileDriver(
      image: image, engine: engine,
      makeEngine: { loop throws(SystemError) in try kind.makeEngine(on: loop, limits: limits) },
      companion: { loop throws(SystemError) in ThreadPoolEngine(loop: loop, limits: limits) },
      hasDurableWrites: facts.hasDurableWrites, merge: drive.merge)
  }
}
