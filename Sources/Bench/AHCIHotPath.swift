// SPDX-License-Identifier: Apache-2.0
import AHCI
import Block
import EventLoop
import GuestMemory
import Machine

/// Drives an AHCI controller over the null driver on one thread, so that the way from the doorbell to the cleared bit in
/// PxSACT can be counted instruction by instruction (`Tools/instructions` runs it under callgrind, which counts inside
/// `ahciPass` only).
public struct AHCIHotPath {
  /// Queued commands that one pass serves.
  public static let batch = 16
  private static let ramBytes: UInt64 = 4 << 20
  private static let abar: UInt64 = 0xe000_0000
  private static let port = abar + 0x100
  private static let allTags = UInt64(1) << UInt64(batch) - 1
  /// Guest addresses of the command list, received FISes, command tables and data.
  private enum Place {
    static let list: UInt64 = 0x10000
    static let received: UInt64 = 0x10400
    static let tables: UInt64 = 0x11000
    static let tableBytes: UInt64 = 256
    static let data: UInt64 = 0x100000
  }

  private let memory = GuestMemory()
  private let machine: Machine
  private let loop: EventLoop

  /// Puts the machine together and starts the port.
  public init() throws {
    try memory.add(GuestRegion(start: 0, byteCount: Self.ramBytes))
    loop = try EventLoop(name: "hot-path")
    machine = Machine(memory: memory, mainLoop: loop)
    let backend = BlockBackend(
      driver: NullDriver(byteCount: 1 << 30), loop: loop, configuration: BlockConfiguration())
    let controller = AHCIController(name: "ahci", memory: memory, loop: loop)
    controller.connect(ATADrive(backend: backend), to: 0)
    machine.lock.lock()
    machine.attach(controller)
    controller.configurationWrite(offset: 0x24, width: 4, value: UInt32(Self.abar))
    controller.configurationWrite(offset: 4, width: 2, value: 6)
    for tag in 0..<UInt64(Self.batch) { try writeCommand(tag) }
    // PxCLB, PxFB, then FRE and ST.
    write(Self.port, Place.list)
    write(Self.port + 0x08, Place.received)
    write(Self.port + 0x18, 0x10)
    write(Self.port + 0x18, 0x11)
    while loop.runOnce(mayBlock: false) {}
  }

  /// READ FPDMA QUEUED of 4 KiB: header, register FIS, one region.
  private func writeCommand(_ tag: UInt64) throws {
    let table = Place.tables + tag * Place.tableBytes
    try memory.store(UInt32(1 << 16 | 5), at: Place.list + tag * 32)
    try memory.store(table, at: Place.list + tag * 32 + 8)
    let fis: [UInt8] = [
      0x27, 0x80, 0x60, 8, UInt8(tag * 8), 0, 0, 0x40, 0, 0, 0, 0, UInt8(tag << 3), 0, 0, 0, 0, 0, 0, 0,
    ]
    try memory.write(fis, at: table)
    try memory.store(Place.data + tag * 4096, at: table + 0x80)
    try memory.store(UInt32(4095), at: table + 0x8c)
  }

  private func write(_ address: UInt64, _ value: UInt64) {
    machine.memorySpace.write(address, width: 4, value: value)
  }

  /// Serves `passes` batches.
  /// - Returns: commands that ended, as PxSACT tells.
  public func run(passes: Int) -> Int {
    var completed = 0
    for _ in 0..<passes {
      ahciPass()
      let left = machine.memorySpace.read(Self.port + 0x34, width: 4) ?? 0
      completed += Self.batch - left.nonzeroBitCount
    }
    return completed
  }

  /// The guest's two writes and everything that follows. Never inlined, so that callgrind can be told to count inside it.
  @inline(never)
  private func ahciPass() {
    write(Self.port + 0x34, Self.allTags)
    write(Self.port + 0x38, Self.allTags)
    _ = loop.runOnce(mayBlock: false)
    _ = loop.runOnce(mayBlock: false)
  }
}
