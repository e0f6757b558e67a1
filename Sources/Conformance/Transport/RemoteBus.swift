// SPDX-License-Identifier: Apache-2.0
import GuestDrivers
import HostSystem

/// The machine behind a qtest socket as a guest's program sees it. Nothing but devices runs there, so barriers have
/// nothing to order: a request is answered after it has taken effect.
/// Once the connection has failed every read gives all ones, writes do nothing, waits end, and `failure` says why.
/// Belongs to one thread.
public final class RemoteBus: Bus {
  /// Where RAM is handed out from; below it a PC keeps other things.
  public static let memoryBase: UInt64 = 1 << 20
  /// Bulk transfers are cut into requests of this many bytes.
  public static let bulkBytesMax = 64 << 10
  /// Message interrupts have this many words of RAM.
  private static let interruptsMax: UInt64 = 64
  /// A tick is a quarter of a nanosecond, so that the drivers' longest wait is 15 seconds.
  private static let ticksPerNanosecond: UInt64 = 4

  /// The connection.
  public let client: QTestClient
  /// Why the connection has failed; nil while it works.
  public private(set) var failure: TransportError?
  /// The end of the machine's RAM.
  public let memoryEnd: UInt64
  private var nextFree = RemoteBus.memoryBase
  private var interruptWords: UInt64 = 0
  private var interruptTotal: UInt64 = 0
  private var interruptCounts: [UInt32] = []

  /// Drives a machine.
  /// - Parameters:
  ///   - client: the connection, with nothing in flight.
  ///   - memoryBytes: RAM from address 0 on.
  public init(client: QTestClient, memoryBytes: UInt64) {
    self.client = client
    memoryEnd = memoryBytes
  }

  @inline(__always)
  private func attempt<T>(_ otherwise: T, _ body: () throws(TransportError) -> T) -> T {
    guard failure == nil else { return otherwise }
    do {
      return try body()
    } catch {
      failure = error
      return otherwise
    }
  }

  private func portRead(_ port: UInt16, _ byteCount: Int) -> UInt32 {
    attempt(.max) { () throws(TransportError) in try client.portRead(port, byteCount: byteCount) }
  }

  private func portWrite(_ port: UInt16, _ value: UInt32, _ byteCount: Int) {
    attempt(()) { () throws(TransportError) in try client.portWrite(port, value, byteCount: byteCount) }
  }

  private func read(_ address: UInt64, _ byteCount: Int) -> UInt64 {
    attempt(.max) { () throws(TransportError) in try client.read(address, byteCount: byteCount) }
  }

  private func write(_ address: UInt64, _ value: UInt64, _ byteCount: Int) {
    attempt(()) { () throws(TransportError) in try client.write(address, value, byteCount: byteCount) }
  }

  // MARK: Bus

  /// Reads one byte from a port.
  public func in8(_ port: UInt16) -> UInt8 { UInt8(truncatingIfNeeded: portRead(port, 1)) }
  /// Reads two bytes from a port.
  public func in16(_ port: UInt16) -> UInt16 { UInt16(truncatingIfNeeded: portRead(port, 2)) }
  /// Reads four bytes from a port.
  public func in32(_ port: UInt16) -> UInt32 { portRead(port, 4) }
  /// Writes one byte to a port.
  public func out8(_ port: UInt16, _ value: UInt8) { portWrite(port, UInt32(value), 1) }
  /// Writes two bytes to a port.
  public func out16(_ port: UInt16, _ value: UInt16) { portWrite(port, UInt32(value), 2) }
  /// Writes four bytes to a port.
  public func out32(_ port: UInt16, _ value: UInt32) { portWrite(port, value, 4) }

  /// Reads one byte of device memory.
  public func mmioRead8(_ address: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: read(address, 1)) }
  /// Reads two bytes of device memory.
  public func mmioRead16(_ address: UInt64) -> UInt16 { UInt16(truncatingIfNeeded: read(address, 2)) }
  /// Reads four bytes of device memory.
  public func mmioRead32(_ address: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: read(address, 4)) }
  /// Reads eight bytes of device memory.
  public func mmioRead64(_ address: UInt64) -> UInt64 { read(address, 8) }
  /// Writes one byte of device memory.
  public func mmioWrite8(_ address: UInt64, _ value: UInt8) { write(address, UInt64(value), 1) }
  /// Writes two bytes of device memory.
  public func mmioWrite16(_ address: UInt64, _ value: UInt16) { write(address, UInt64(value), 2) }
  /// Writes four bytes of device memory.
  public func mmioWrite32(_ address: UInt64, _ value: UInt32) { write(address, UInt64(value), 4) }
  /// Writes eight bytes of device memory.
  public func mmioWrite64(_ address: UInt64, _ value: UInt64) { write(address, value, 8) }

  /// Reads one byte of RAM.
  public func ramRead8(_ address: UInt64) -> UInt8 { mmioRead8(address) }
  /// Reads two bytes of RAM.
  public func ramRead16(_ address: UInt64) -> UInt16 { mmioRead16(address) }
  /// Reads four bytes of RAM.
  public func ramRead32(_ address: UInt64) -> UInt32 { mmioRead32(address) }
  /// Reads eight bytes of RAM.
  public func ramRead64(_ address: UInt64) -> UInt64 { mmioRead64(address) }
  /// Writes one byte of RAM.
  public func ramWrite8(_ address: UInt64, _ value: UInt8) { mmioWrite8(address, value) }
  /// Writes two bytes of RAM.
  public func ramWrite16(_ address: UInt64, _ value: UInt16) { mmioWrite16(address, value) }
  /// Writes four bytes of RAM.
  public func ramWrite32(_ address: UInt64, _ value: UInt32) { mmioWrite32(address, value) }
  /// Writes eight bytes of RAM.
  public func ramWrite64(_ address: UInt64, _ value: UInt64) { mmioWrite64(address, value) }

  /// Nothing: the socket orders accesses.
  public func fullBarrier() {}
  /// Nothing: the socket orders accesses.
  public func storeBarrier() {}
  /// Nothing: the socket orders accesses.
  public func loadBarrier() {}

  /// Hands out RAM from `memoryBase` upward and zeroes it.
  public func allocate(byteCount: UInt64, alignment: UInt64) -> UInt64? {
    let start = (nextFree + alignment - 1) & ~(alignment - 1)
    let (end, overflow) = start.addingReportingOverflow(byteCount)
    guard !overflow, end <= memoryEnd else { return nil }
    nextFree = end
    fill(start, byteCount: byteCount, 0)
    return start
  }

  /// An interrupt is a word of RAM of its own, which the device's message overwrites with data that is never 0.
  public func allocateInterrupt(processor: Int) -> MessageInterrupt? {
    if interruptWords == 0 {
      guard let words = allocate(byteCount: 4 * Self.interruptsMax, alignment: 4096) else { return nil }
      interruptWords = words
    }
    guard interruptTotal < Self.interruptsMax else { return nil }
    let number = interruptTotal
    interruptTotal += 1
    interruptCounts.append(0)
    return MessageInterrupt(
      number: UInt32(number), address: interruptWords + 4 * number, data: 0x4100 + UInt32(number))
  }

  /// Messages that came since the last look count as one, as with any interrupt controller.
  public func interruptCount(_ interrupt: MessageInterrupt) -> UInt32 {
    let index = Int(interrupt.number)
    if ramRead32(interrupt.address) != 0, failure == nil {
      ramWrite32(interrupt.address, 0)
      interruptCounts[index] &+= 1
    }
    return interruptCounts[index]
  }

  /// Polls the interrupt's word, for at most a second.
  public func waitForInterrupt(_ interrupt: MessageInterrupt, after seen: UInt32) -> Bool {
    let start = ticks
    while failure == nil {
      if interruptCount(interrupt) != seen || ticks &- start > Self.ticksPerNanosecond * 1_000_000_000 { return true }
    }
    return false
  }

  /// False once the connection has failed.
  public func relax() -> Bool { failure == nil }

  /// One: nothing but the client runs.
  public var processorCount: Int { 1 }

  /// False: there are no other processors.
  public func startProcessor(_ index: Int, _ program: @escaping @Sendable (RemoteBus) -> Void) -> Bool { false }

  /// The host's clock, in quarters of a nanosecond.
  public var ticks: UInt64 { HostClock.nanoseconds &* Self.ticksPerNanosecond }

  // MARK: Bulk

  /// Fills RAM with one byte's value.
  public func fill(_ address: UInt64, byteCount: UInt64, _ value: UInt8) {
    attempt(()) { () throws(TransportError) in try client.fill(address, byteCount: byteCount, value) }
  }

  /// Writes bytes of RAM.
  public func store(_ address: UInt64, _ bytes: [UInt8]) {
    var done = 0
    while done < bytes.count {
      let count = min(Self.bulkBytesMax, bytes.count - done)
      let piece = Array(bytes[done..<(done + count)])
      attempt(()) { () throws(TransportError) in try client.write(address + UInt64(done), piece) }
      done += count
    }
  }

  /// Reads bytes of RAM; all ones once the connection has failed.
  public func load(_ address: UInt64, count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < count {
      let piece = min(Self.bulkBytesMax, count - bytes.count)
      let place = address + UInt64(bytes.count)
      bytes += attempt([UInt8](repeating: 0xFF, count: piece)) { () throws(TransportError) in
        try client.readBytes(place, count: piece)
      }
    }
    return bytes
  }
}
