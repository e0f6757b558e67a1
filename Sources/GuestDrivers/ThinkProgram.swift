// SPDX-License-Identifier: Apache-2.0

/// What the thinking load writes to the port of a PC's diagnostic codes (0x80) when its time begins and ends.
///
/// Nobody but a host that measures looks at these ports; a write there does nothing on any PC.
public enum ThinkMark {
  /// The diagnostic port.
  public static let port: UInt16 = 0x80
  /// The first thought begins.
  public static let begin: UInt8 = 0xB0
  /// The last thought has ended.
  public static let end: UInt8 = 0xE0
}

/// Runs the thinking load once and says on the first serial port how long it took.
///
/// The command line is that of `ThinkOptions`. The report is one line, and the marks are written before it:
///
///     # think requests=N failures=N ns=N
///
/// A program that cannot do its work ends with a line that begins with "Bail out!" (TAP) instead.
public struct ThinkProgram<B: SleepingBus> {
  private let bus: B
  private let options: ThinkOptions
  private let console: SerialConsole<B>

  /// A run on the machine behind `bus`.
  /// - Returns: nil where the command line does not ask for `load=think`.
  public init?(bus: B, commandLine: [UInt8]) {
    guard let options = ThinkOptions(parsing: commandLine) else {
      return nil
    }
    self.bus = bus
    self.options = options
    console = SerialConsole(bus: bus)
  }

  /// Runs on the boot processor.
  /// - Returns: how many requests failed, or 1 where the program could not do its work.
  public func run() -> Int {
    // A line of its own first: firmware may have left its last one open.
    console.text("# spindle test guest, load=think")
    console.endLine()
    guard options.unknownWordAt == nil else {
      bailOut("a word of the command line is unknown, or its value is out of range")
      return 1
    }
    do {
      switch options.device {
      case .none:
        return try measure { () throws(DriverError) in
          try ThinkingLoad<AHCIQueue<B>>.think(on: bus, options.parameters)
          return 0
        }
      case .ahci:
        let disk = try StartedAHCIDisk(topology: PCITopology(bus: bus), waitMode: .interrupt)
        return try withExtendedLifetime(disk) { () throws(DriverError) in
          try load(disk.queue, sectorCount: disk.sectorCount)
        }
      case .virtio:
        let disk = try StartedVirtioDisk(topology: PCITopology(bus: bus), waitMode: .interrupt)
        return try withExtendedLifetime(disk) { () throws(DriverError) in
          try load(disk.queue, sectorCount: disk.sectorCount)
        }
      }
    } catch {
      bailOut(TestReport<B>.text(error))
      return 1
    }
  }

  private func load<Queue: DiskQueue>(
    _ queue: Queue, sectorCount: UInt64
  ) throws(DriverError) -> Int where Queue.B == B {
    let parameters = options.parameters
    guard parameters.totalBytes / 512 <= sectorCount else {
      bailOut("the disk is smaller than what is to be read")
      return 1
    }
    guard let buffers = bus.allocate(byteCount: parameters.bufferBytes, alignment: 4096),
      let load = ThinkingLoad(bus: bus, queue: queue, parameters: parameters, buffers: buffers)
    else {
      throw .outOfResources
    }
    return try measure { () throws(DriverError) in try load.run() }
  }

  /// Runs `body` between the marks, and reports.
  /// - Returns: how many requests failed.
  private func measure(_ body: () throws(DriverError) -> UInt64) throws(DriverError) -> Int {
    bus.out8(ThinkMark.port, ThinkMark.begin)
    let start = bus.nanoseconds
    let failures = try body()
    let elapsed = bus.nanoseconds &- start
    bus.out8(ThinkMark.port, ThinkMark.end)
    console.text("# think requests=")
    console.decimal(options.device == .none ? 0 : options.parameters.requestCount)
    console.text(" failures=")
    console.decimal(failures)
    console.text(" ns=")
    console.decimal(elapsed)
    console.endLine()
    return Int(failures)
  }

  private func bailOut(_ reason: StaticString) {
    console.text("Bail out! ")
    console.text(reason)
    console.endLine()
  }
}
