// SPDX-License-Identifier: Apache-2.0
import GuestDrivers

/// What a case works with: the machine, checks, random numbers. Belongs to the thread that runs the case.
public final class CaseContext {
  /// How long a case waits for something that must happen.
  static let waitNanosecondsMax: UInt64 = 10_000_000_000

  /// The machine.
  public let bus: RemoteBus
  /// Its monitor, where it has one and the case's kind asks for it.
  public let monitor: MonitorClient?
  /// Random numbers of the run's seed and the case's name.
  public var random: SeededNumbers
  /// The functions of the machine, enumerated when first asked for.
  public lazy var topology = PCITopology(bus: bus)

  init(bus: RemoteBus, monitor: MonitorClient?, random: SeededNumbers) {
    self.bus = bus
    self.monitor = monitor
    self.random = random
  }

  // MARK: Checks

  /// Fails the case unless two numbers are equal.
  public func expect<T: FixedWidthInteger>(_ seen: T, _ expected: T, _ what: @autoclosure () -> String) throws {
    try checkTransport()
    guard seen == expected else {
      throw ConformanceFailure("\(what()): expected \(Self.hexadecimal(expected)), saw \(Self.hexadecimal(seen))")
    }
  }

  /// Fails the case unless the bits of `mask` are as in `expected`.
  public func expect<T: FixedWidthInteger>(
    _ seen: T, mask: T, _ expected: T, _ what: @autoclosure () -> String
  ) throws {
    try expect(seen & mask, expected, "\(what()), of \(Self.hexadecimal(seen)) the bits \(Self.hexadecimal(mask))")
  }

  /// Fails the case unless two runs of bytes are equal; says where they first differ.
  public func expect(_ seen: [UInt8], _ expected: [UInt8], _ what: @autoclosure () -> String) throws {
    try checkTransport()
    guard seen != expected else { return }
    guard seen.count == expected.count,
      let index = zip(seen, expected).enumerated().first(where: { $0.element.0 != $0.element.1 })?.offset
    else {
      throw ConformanceFailure("\(what()): expected \(expected.count) bytes, saw \(seen.count)")
    }
    throw ConformanceFailure(
      "\(what()): byte \(index) of \(expected.count): expected \(Self.hexadecimal(expected[index])), "
        + "saw \(Self.hexadecimal(seen[index]))")
  }

  /// Fails the case unless something holds.
  public func expect(_ holds: Bool, _ what: @autoclosure () -> String) throws {
    try checkTransport()
    guard holds else { throw ConformanceFailure("expected that \(what()); saw that it is not so") }
  }

  /// Waits until something holds; fails the case where it does not come to.
  public func wait(until what: @autoclosure () -> String, _ holds: () throws -> Bool) throws {
    let start = bus.ticks
    while try !holds() {
      try checkTransport()
      guard (bus.ticks &- start) / 4 < Self.waitNanosecondsMax else {
        throw ConformanceFailure("expected that \(what()); saw nothing of it in 10 seconds")
      }
    }
    try checkTransport()
  }

  /// Fails the case as soon as something does not hold any more. What must not happen is given this long to happen, so
  /// that it does even on a busy host.
  public func expectStays(_ what: @autoclosure () -> String, milliseconds: UInt64 = 1000, _ holds: () -> Bool) throws {
    let end = bus.ticks &+ milliseconds * 4_000_000
    repeat { try expect(holds(), what()) } while bus.ticks < end
  }

  /// Lets the machine alone for a while: no access, so nothing that could wake it.
  public func pause(milliseconds: UInt64) {
    let end = bus.ticks &+ milliseconds * 4_000_000
    while bus.ticks < end { hostSleep(microseconds: 200) }
  }

  /// Throws where the connection has failed, since nothing read after that means anything.
  public func checkTransport() throws {
    if let failure = bus.failure { throw failure }
  }

  /// Leaves the case out.
  public func skip(_ reason: String) throws -> Never { throw ConformanceSkip(reason) }

  static func hexadecimal<T: FixedWidthInteger>(_ value: T) -> String { "0x" + String(value, radix: 16) }

  // MARK: Memory

  /// Zeroed RAM, on a page.
  public func allocate(_ byteCount: UInt64) throws -> UInt64 {
    guard let address = bus.allocate(byteCount: byteCount, alignment: 4096) else {
      try checkTransport()
      throw DriverError.outOfResources
    }
    return address
  }

  /// RAM on a page with given bytes.
  public func allocate(_ bytes: [UInt8]) throws -> UInt64 {
    let address = try allocate(UInt64(bytes.count))
    bus.store(address, bytes)
    return address
  }

  /// Bytes that no disk holds by accident.
  public func randomBytes(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
  }

  // MARK: Devices

  /// The function at a place of bus 0. Every kind of machine says what is where, so it fails the case where there is none.
  public func entry(device: UInt8, function: UInt8) throws -> PCITopology<RemoteBus>.Entry {
    let place = PCIAddress(bus: 0, device: device, function: function)
    guard let entry = topology.entries.first(where: { $0.function.address == place }) else {
      try checkTransport()
      let place = "00:\(String(device, radix: 16)).\(function)"
      throw ConformanceFailure("expected a function at \(place); saw none")
    }
    return entry
  }
}

/// A small generator of numbers that look random (SplitMix64): the same seed gives the same numbers everywhere.
public struct SeededNumbers: RandomNumberGenerator, Sendable {
  private var state: UInt64

  /// Begins with a seed.
  public init(seed: UInt64) {
    state = seed
  }

  /// Begins with a seed that also depends on a name.
  public init(seed: UInt64, name: String) {
    // FNV-1a, which is the same on every run, unlike the standard library's hash.
    state = name.utf8.reduce(seed ^ 0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
  }

  /// The next number.
  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
    return mixed ^ mixed >> 31
  }
}
