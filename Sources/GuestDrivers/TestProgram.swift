// SPDX-License-Identifier: Apache-2.0

/// The test of a machine and its disks, as a guest sees them: virtio-blk, and ATA and ATAPI behind AHCI.
///
/// It prints TAP on the first serial port, drives every virtio-blk function and every AHCI port with a device that it
/// finds, numbers them in this order, and writes nowhere but to a GPT partition 2 that is named "scratch". Lines for the
/// host to check:
///
///     # disk-serial disk=D text
///     # disk-sum disk=D a=0x… b=0x… words=N          all of the disk, before anything is written
///     # partition-sum disk=D partition=1 first=LBA last=LBA a=0x… b=0x… words=N
///     # scratch disk=D partition=2 first=LBA last=LBA seed=N words=N   once the pattern is there and was flushed
///     # cd-sum disk=D a=0x… b=0x… words=N            all of the medium in an ATAPI drive
///
/// The sums are `WordSum`s and the pattern is `ScratchPattern`. Words of the command line: `irq=msix|msi|poll`, `seed=N`,
/// `disk=gpt|plain`, `quiet`; `msix` and `msi` both ask for messages of whichever kind the device has.
public struct TestProgram<B: Bus> {
  let bus: B
  let commandLine: [UInt8]

  /// A test of the machine behind `bus`, with the bytes of a command line.
  public init(bus: B, commandLine: [UInt8]) {
    self.bus = bus
    self.commandLine = commandLine
  }

  /// Runs every case on the boot processor, and some on the others.
  /// - Returns: how many cases failed.
  public func run() -> Int {
    let options = TestOptions(parsing: commandLine)
    let run = TestRun(bus: bus, options: options)
    run.all()
    return Int(run.report.failureCount)
  }
}

/// What the cases of one run share.
final class TestRun<B: Bus> {
  /// Bytes of one large read or write.
  static var chunkBytes: UInt64 { 64 << 10 }
  /// How many of them are in flight.
  static var chunkCount: Int { 4 }
  /// Bytes of memory for small things: a GPT and its neighbours.
  static var scratchpadBytes: UInt64 { 32 << 10 }
  /// At most this many disks are tested.
  static var disksMax: Int { 16 }

  let bus: B
  let options: TestOptions
  var report: TestReport<B>
  let crc = CRC32()
  /// `chunkCount` chunks of RAM for data.
  var chunks: UInt64 = 0
  /// RAM for small things.
  var scratchpad: UInt64 = 0
  /// How many disks were found so far; the next one gets this number.
  var diskCount = 0
  /// The machine is going away, or a device does not answer: the rest is left out.
  var isStopping = false

  init(bus: B, options: TestOptions) {
    self.bus = bus
    self.options = options
    report = TestReport(console: SerialConsole(bus: bus), isQuiet: options.isQuiet)
  }

  func all() {
    report.comment { console in
      console.text("spindle test guest, processors ")
      console.decimal(UInt64(bus.processorCount))
    }
    if options.unknownWordAt != nil {
      report.check(false, "every word of the command line is known")
    }
    serialCases()
    guard let chunks = bus.allocate(byteCount: TestRun.chunkBytes * UInt64(TestRun.chunkCount), alignment: 4096),
      let scratchpad = bus.allocate(byteCount: TestRun.scratchpadBytes, alignment: 4096)
    else {
      report.check(false, "there is memory for the test's buffers")
      report.finish()
      return
    }
    self.chunks = chunks
    self.scratchpad = scratchpad
    let topology = PCITopology(bus: bus)
    pciCases(topology)
    diskCases(topology)
    report.finish()
  }

  /// Runs a case's body; an error that it throws fails the case, and ends the run where the carrier goes away.
  func attempt(_ name: StaticString, _ body: () throws(DriverError) -> Bool) {
    if isStopping {
      return
    }
    do {
      let holds = try body()
      report.check(holds, name)
    } catch {
      report.fail(name, error)
      if error == .machineStopped || error == .timedOut {
        isStopping = true
      }
    }
  }

  private func diskCases(_ topology: PCITopology<B>) {
    var disks: [VirtioDisk<B>] = []
    for entry in topology.entries where VirtioBlockDriver<B>.drives(entry.function) {
      guard !isStopping, diskCount < TestRun.disksMax else {
        break
      }
      report.disk = UInt64(diskCount)
      do {
        let driver = try VirtioBlockDriver(topology: topology, entry: entry)
        let disk = VirtioDisk(number: diskCount, driver: driver)
        diskCount += 1
        disks.append(disk)
        allCases(of: disk)
      } catch {
        report.fail("the function has the register blocks of a modern device", error)
      }
    }
    for entry in topology.entries where AHCIController<B>.drives(entry.function) {
      guard !isStopping else {
        break
      }
      ahciCases(topology, entry)
    }
    report.disk = nil
    report.check(diskCount > 0, "there is a disk")
    processorCases(disks)
  }

  private func allCases(of disk: VirtioDisk<B>) {
    transportCases(disk)
    guard !isStopping, !disk.driver.queues.isEmpty else {
      return
    }
    identityCases(disk)
    partitionCases(disk)
    sumCases(disk)
    queueCases(disk)
    scratchCases(disk)
    errorCases(disk)
    writeCacheCases(disk)
    resetCases(disk)
  }
}
