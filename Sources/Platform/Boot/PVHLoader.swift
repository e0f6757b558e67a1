// SPDX-License-Identifier: Apache-2.0
import GuestMemory

/// Puts a PVH kernel into guest memory with what it is told at its start (Xen: docs/misc/pvh.pandoc and
/// xen/include/public/arch-x86/hvm/start_info.h, version 1).
public enum PVHLoader {
  /// Where vCPU 0 begins, and the address that it finds in EBX.
  public struct Boot: Equatable, Sendable {
    /// The 32-bit entry point.
    public let entry: UInt32
    /// Guest-physical address of hvm_start_info.
    public let startInfo: UInt64
  }

  private enum StartInfo {
    static let magic: UInt32 = 0x336e_c578
    static let version: UInt32 = 1
    static let byteCount: UInt64 = 56
    static let moduleBytes: UInt64 = 32
    static let mapEntryBytes: UInt64 = 24
    /// e820 type of usable RAM.
    static let usable: UInt32 = 1
  }

  /// The first page is left alone, since null pointers of guests point there.
  private static let lowStart: UInt64 = 0x1000
  /// Conventional memory ends here on a PC; the start info lies below.
  private static let lowEnd: UInt64 = 0xa_0000
  private static let highStart: UInt64 = 1 << 20
  /// Bytes of a command line, its terminating zero included; Linux takes 2048.
  public static let commandLineBytesMax = 4096
  private static let pageBytes: UInt64 = 4096

  /// Loads `image` and writes start info, memory map, command line and modules.
  ///
  /// Everything is checked before the first byte is written. Main thread, before vCPUs run.
  public static func load(
    image: ELFImage, into memory: GuestMemory, commandLine: String, modules: [[UInt8]] = []
  ) throws(BootError) -> Boot {
    for segment in image.segments
    where !memory.contains(address: segment.address, byteCount: segment.memoryBytes) {
      throw .doesNotFit(start: segment.address, byteCount: segment.memoryBytes)
    }
    var plan = Plan(image: image, memory: memory)
    let commandBytes = Array(commandLine.utf8) + [0]
    guard commandBytes.count <= commandLineBytesMax else {
      throw .noRoom("a command line of \(commandBytes.count) bytes")
    }
    let map = memoryMap(memory)
    let tables = UInt64(map.count) * StartInfo.mapEntryBytes + UInt64(modules.count) * StartInfo.moduleBytes
    guard let startInfo = plan.takeLow(StartInfo.byteCount + tables + UInt64(commandBytes.count)) else {
      throw .noRoom("the start info")
    }
    var placed: [(address: UInt64, bytes: [UInt8])] = []
    for module in modules {
      guard let address = plan.takeHigh(UInt64(module.count)) else {
        throw .noRoom("a module of \(module.count) bytes")
      }
      placed.append((address, module))
    }
    do throws(GuestMemoryError) {
      try write(image, memory)
      for module in placed { try memory.write(module.bytes, at: module.address) }
      try writeStartInfo(memory, at: startInfo, map: map, modules: placed, commandLine: commandBytes)
    } catch {
      preconditionFailure("every range was checked: \(error)")
    }
    return Boot(entry: image.entry, startInfo: startInfo)
  }

  private static func write(_ image: ELFImage, _ memory: GuestMemory) throws(GuestMemoryError) {
    for segment in image.segments {
      try memory.write(Array(image.bytes[segment.fileRange]), at: segment.address)
      let filled = UInt64(segment.fileRange.count)
      try memory.fill(
        address: segment.address + filled, byteCount: Int(segment.memoryBytes - filled), with: 0)
    }
  }

  /// Usable RAM as a PC reports it: conventional memory, then what is above 1 MiB, then each further region.
  private static func memoryMap(_ memory: GuestMemory) -> [(start: UInt64, byteCount: UInt64)] {
    var map: [(UInt64, UInt64)] = []
    for region in memory.regions {
      if region.start == 0 {
        map.append((0, min(region.byteCount, lowEnd)))
        if region.byteCount > highStart { map.append((highStart, region.byteCount - highStart)) }
      } else {
        map.append((region.start, region.byteCount))
      }
    }
    return map
  }

  private static func writeStartInfo(
    _ memory: GuestMemory, at start: UInt64, map: [(start: UInt64, byteCount: UInt64)],
    modules: [(address: UInt64, bytes: [UInt8])], commandLine: [UInt8]
  ) throws(GuestMemoryError) {
    let moduleList = start + StartInfo.byteCount
    let mapTable = moduleList + UInt64(modules.count) * StartInfo.moduleBytes
    let commandAddress = mapTable + UInt64(map.count) * StartInfo.mapEntryBytes
    try memory.store(StartInfo.magic, at: start)
    try memory.store(StartInfo.version, at: start + 4)
    try memory.store(UInt32(0), at: start + 8)
    try memory.store(UInt32(modules.count), at: start + 12)
    try memory.store(modules.isEmpty ? 0 : moduleList, at: start + 16)
    try memory.store(commandAddress, at: start + 24)
    // No ACPI tables: rsdp_paddr is 0.
    try memory.store(UInt64(0), at: start + 32)
    try memory.store(mapTable, at: start + 40)
    try memory.store(UInt32(map.count), at: start + 48)
    try memory.store(UInt32(0), at: start + 52)
    for (index, module) in modules.enumerated() {
      let entry = moduleList + UInt64(index) * StartInfo.moduleBytes
      try memory.store(module.address, at: entry)
      try memory.store(UInt64(module.bytes.count), at: entry + 8)
      try memory.store(UInt64(0), at: entry + 16)
      try memory.store(UInt64(0), at: entry + 24)
    }
    for (index, range) in map.enumerated() {
      let entry = mapTable + UInt64(index) * StartInfo.mapEntryBytes
      try memory.store(range.start, at: entry)
      try memory.store(range.byteCount, at: entry + 8)
      try memory.store(StartInfo.usable, at: entry + 16)
      try memory.store(UInt32(0), at: entry + 20)
    }
    try memory.write(commandLine, at: commandAddress)
  }

  /// Finds places that neither the image nor each other use.
  private struct Plan {
    private var taken: [(start: UInt64, end: UInt64)]
    private let lowRegionEnd: UInt64

    init(image: ELFImage, memory: GuestMemory) {
      taken = image.segments.map { ($0.address, $0.address + $0.memoryBytes) }
      lowRegionEnd = memory.regions.first { $0.start == 0 }?.end ?? 0
    }

    /// A place below 640 KiB, or above 1 MiB where the image fills that.
    mutating func takeLow(_ byteCount: UInt64) -> UInt64? {
      take(byteCount, from: lowStart, to: min(lowEnd, lowRegionEnd)) ?? takeHigh(byteCount)
    }

    /// A place above 1 MiB and below 4 GiB.
    mutating func takeHigh(_ byteCount: UInt64) -> UInt64? { take(byteCount, from: highStart, to: lowRegionEnd) }

    private mutating func take(_ byteCount: UInt64, from first: UInt64, to end: UInt64) -> UInt64? {
      var start = first
      while start < end, byteCount <= end - start {
        guard let obstacle = taken.first(where: { $0.start < start + byteCount && start < $0.end }) else {
          taken.append((start, start + byteCount))
          return start
        }
        start = (obstacle.end + pageBytes - 1) & ~(pageBytes - 1)
      }
      return nil
    }
  }
}
