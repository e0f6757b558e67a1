// SPDX-License-Identifier: Apache-2.0
// An engine whose kernel is the test: it sees every operation and says what becomes of it.
import EventLoop
import Glibc
import HostSystem
import Testing

@testable import AsyncIO
@testable import Block

final class ScriptedEngine: IOEngine {
  struct Entry: Equatable {
    var opcode: IOOpcode
    var offset: UInt64
    var byteCount: Int
    var forceUnitAccess = false
    var mayUnmap = false
    var iovecCount: Int32 = 0
  }

  /// Everything that was submitted, in order.
  var log: [Entry] = []
  /// Operations that have no answer yet, oldest first.
  var held: [UnsafeMutablePointer<IOOperation>] = []
  /// The answer to an operation, delivered in the next round of the loop; nil holds it.
  var answer: (UnsafeMutablePointer<IOOperation>) -> Int32? = { _ in nil }
  var unsupported: Set<IOOpcode> = []
  var fuaIsNative = true
  override var hasNativeFUA: Bool { fuaIsNative }
  var opcodes: [IOOpcode] { log.map(\.opcode) }

  init(loop: EventLoop) { super.init(deliveringOn: loop) }

  override func supports(_ opcode: IOOpcode) -> Bool { !unsupported.contains(opcode) }

  override func submit(_ operation: UnsafeMutablePointer<IOOperation>) {
    began(operation)
    log.append(
      Entry(
        opcode: operation.pointee.opcode, offset: operation.pointee.offset, byteCount: operation.pointee.byteCount,
        forceUnitAccess: operation.pointee.forceUnitAccess, mayUnmap: operation.pointee.mayUnmap,
        iovecCount: operation.pointee.iovecCount))
    if let result = answer(operation) { finishLater(operation, result) } else { held.append(operation) }
  }

  /// Ends the operation held longest.
  func completeOne(_ result: Int32 = 0) {
    let operation = held.removeFirst()
    operation.pointee.result = result
    finish(operation)
  }

  /// Answers as the file does, except where `refuse` names an error.
  func actOnFile(refuse: @escaping (UnsafeMutablePointer<IOOperation>) -> Int32? = { _ in nil }) {
    answer = { operation in
      if let error = refuse(operation) { return error }
      switch operation.pointee.opcode {
      case .read:
        let moved = preadv(
          operation.pointee.descriptor, operation.pointee.iovecs, operation.pointee.iovecCount,
          off_t(operation.pointee.offset))
        return moved == operation.pointee.byteCount ? 0 : -EIO
      case .write:
        let moved = pwritev(
          operation.pointee.descriptor, operation.pointee.iovecs, operation.pointee.iovecCount,
          off_t(operation.pointee.offset))
        return moved == operation.pointee.byteCount ? 0 : -EIO
      case .flush: return 0
      case .discard, .writeZeroes:
        // Writing says the same to the test as fallocate would.
        let zeroes = [UInt8](repeating: 0, count: operation.pointee.byteCount)
        return pwrite(operation.pointee.descriptor, zeroes, zeroes.count, off_t(operation.pointee.offset))
          == zeroes.count ? 0 : -EIO
      }
    }
  }
}

/// A backend on a real file and a scripted engine.
final class ScriptKit: BackendKit {
  let loop: EventLoop
  let engine: ScriptedEngine
  let driver: FileDriver
  let backend: BlockBackend
  let client = TestClient()
  /// Engines that the driver asked for beside the one it was given.
  private(set) var companions: [ScriptedEngine] = []

  init(
    _ file: TemporaryFile, cache: CacheMode = .writeback, alignment: IOAlignment? = nil, hasCompanion: Bool = false,
    hasDurableWrites: Bool = true, merge: Bool = true,
    set: (ScriptedEngine) -> Void = { _ in }
  ) throws {
    loop = try EventLoop(name: "test")
    engine = ScriptedEngine(loop: loop)
    set(engine)
    let image = try ImageFile.open(path: file.path, cache: .writeback, readOnly: false)
    let made = Made()
    driver = FileDriver(
      image: image, engine: engine,
      companion: hasCompanion ? { (loop) throws(SystemError) in made.make(loop) } : nil, alignment: alignment,
      hasDurableWrites: hasDurableWrites, merge: merge)
    var configuration = BlockConfiguration()
    configuration.cache = cache
    backend = BlockBackend(driver: driver, loop: loop, configuration: configuration)
    made.kit = self
  }

  private final class Made {
    weak var kit: ScriptKit?
    func make(_ loop: EventLoop) -> IOEngine {
      let engine = ScriptedEngine(loop: loop)
      engine.actOnFile()
      kit?.companions.append(engine)
      return engine
    }
  }

  /// A request on a range alone.
  func range(
    _ operation: BlockOperation, _ range: Range<Int>, mayUnmap: Bool = false
  ) -> TestRequest {
    let request = TestRequest(operation, offset: UInt64(range.lowerBound), client: client)
    request.pointer.pointee.byteCount = UInt64(range.count)
    request.pointer.pointee.mayUnmap = mayUnmap
    return request
  }
}
