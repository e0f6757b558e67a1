// SPDX-License-Identifier: Apache-2.0
import Accelerators
import ArgumentParser
import Assembly
import Block
import Glibc
import GuestDrivers
import GuestImages
import HostSystem
import Machine
import Monitor
import Platform
import QEMUCommandLine

struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a guest image against virtual disks.",
    discussion: """
      Without --kernel the built-in test guest runs: it checks every disk and
      prints TAP on the serial port. Its command line takes irq=msix|poll,
      seed=N, disk=gpt|plain and quiet; with load=think it reads
      through one disk as `spindle wakeup --guest kvm` has it do.

      The exit status is the guest's, as isa-debug-exit defines it:
      (value << 1) | 1, so 1 is a guest that reported 0. A usage error exits
      with 2, a failure with 1, each with a line that starts with "spindle:".

      Examples:
        spindle run --drive file=disk.img,if=virtio,cache=none,serial=DISK1
        spindle run --cpus 2 --drive file=a.img,queues=2 --drive file=b.img
        spindle run --accel hosted --append "seed=7" --drive file=a.img --iothread
        spindle run --kernel my.elf --serial file:log --drive file=disk.img
        spindle run --drive file=disk.img,if=ahci --drive file=cd.iso,media=cdrom

      Keys of --drive:
        file=PATH                a raw image or a block device
        if=virtio|ahci           a virtio-blk function of its own, or a port of the
                                 AHCI controller at 00:1f.2 (if=ide is the same)
        port=0…5                 the AHCI port; by default the first free one
        media=disk|cdrom         cdrom: if=ahci and readonly=on; without file= the
                                 drive is empty
        format=raw               the bytes of the image are those of the disk
        id=NAME, serial=TEXT     names, for you and for the guest
        cache=none|writeback|writethrough|directsync|unsafe
        readonly=on|off          the guest may only read
        aio=auto|io_uring|linux-aio|threads
                                 the engine (aio=help: what this host has)
        aio-threads=N            most threads of aio=threads
        merge=on|off             requests that continue each other go as one
        pin=on|off               pin guest memory for io_uring
        rerror=, werror=report|stop|ignore|enospc
                                 when the host fails; stop: the machine stands
                                 still until SIGCONT, which tries again
        fault=RULE[;RULE]        such as write:error=ENOSPC:nth=3
        file=blkdebug:RULES:PATH faults by QEMU's rules, from the file RULES
        snapshot=on              what the guest writes is gone afterwards
        throttling.bps-total=N   most bytes a second; also -read and -write, iops-
                                 for requests, and -max for bursts
        discard=unmap|ignore, detect-zeroes=off|on|unmap
                                 what becomes of discards, and of written zeroes
        auto-read-only=on        an image that may not be written is read-only
        file.locking=off         do not lock the image
        queues=N, queue-size=N   virtqueues, and the entries of each (if=virtio)
        addr=SLOT.FUNCTION       the place on the PCI bus (if=virtio)
        cyls=N,heads=N,secs=N, ver=TEXT
                                 geometry and firmware revision (if=ahci)
        driver=null,size=1G,latency=NS
                                 a disk with no bytes at all
        driver=memory,size=64M   a disk in memory
      A comma in a value is written twice.
      """)

  @Option(help: "An ELF image with a PVH entry note; 'builtin' is the test guest.")
  var kernel = "builtin"
  @Option(help: "The guest's command line.")
  var append = ""
  @Option(help: "Guest memory, with K, M or G; a bare number counts megabytes.")
  var memory = "256M"
  @Option(help: "Virtual processors.")
  var cpus = 1
  @Option(help: "auto, kvm, or hosted (the built-in guest on threads of this process).")
  var accel = "auto"
  @Option(help: "A disk: file=PATH,key=value,… (repeatable).")
  var drive: [String] = []
  @Option(help: "The serial port's other end: stdio or file:PATH.")
  var serial = "stdio"
  @Flag(help: "Give each virtio disk a thread and event loop of its own.")
  var iothread = false
  @Option(help: "How loops watch descriptors: auto, poll, epoll or io_uring.")
  var loop = "auto"
  @Option(
    name: .customLong("poll-max-ns"), help: "Longest time that an I/O thread polls before it sleeps (with --iothread).")
  var pollNsMax: UInt64 = 0
  @Option(help: "When the main loop is woken for what a vCPU has queued: elided, always or never.")
  var wake = "elided"
  @Option(help: "Who enters the kernel for what a vCPU has queued: loop or vcpu.")
  var submit = "loop"
  @Option(
    help:
      "A QMP monitor: unix:PATH or tcp:127.0.0.1:PORT, with ,server=on and ,wait=off, or stdio (with --serial file:…).")
  var qmp: String?
  @Option(help: "Record what happens to each request, and write it to FILE for Perfetto or chrome://tracing.")
  var trace: String?

  func run() throws {
    if drive.contains(where: DriveConfiguration.asksForEngines) { return EngineReport().print() }
    let choice = try acceleratorChoice()
    let monitorAddress = try qmpAddress()
    let configuration = try machineConfiguration()
    let image = try kernelImage()
    let sink = try serialSink()
    // Before any thread starts, so that no thread is interrupted by them.
    let signals = try ShutdownSignals()
    let recording = try trace.map { try TraceRecording(path: $0) }
    let (accelerator, reason) = try pick(choice)
    let assembled: AssembledMachine
    do {
      assembled = try AssembledMachine(configuration, serial: sink)
    } catch let error as ImageError {
      throw SetupError("--drive: \(error)")
    }
    switch accelerator {
    case .kvm: try useKVM(assembled, image)
    default: useHosted(assembled)
    }
    note("accelerator: \(accelerator.rawValue) (\(reason))")
    assembled.notes.forEach(note)
    if serial == "stdio" { sink.startInput(from: STDIN_FILENO, loop: assembled.machine.mainLoop) }
    signals.watch(assembled)
    let monitor = try monitorAddress.map { try startMonitor(at: $0, of: assembled) }
    defer { monitor?.close() }
    recording?.start()
    let ending = try assembled.run()
    if let recording { note(try recording.finish()) }
    throw ExitCode(status(of: ending))
  }

  private func useKVM(_ assembled: AssembledMachine, _ image: [UInt8]) throws {
    do {
      try assembled.useKVM(kernel: image, commandLine: append, processorCount: cpus) { what in
        StandardError.print("spindle: the guest stopped: \(what)")
      }
    } catch let error as BootError {
      throw SetupError("--kernel \(kernel): \(error)")
    }
  }

  private func useHosted(_ assembled: AssembledMachine) {
    let commandLine = append
    _ = assembled.useHosted(processorCount: cpus) { bus in
      let failures = BootProgram.run(on: bus, commandLine: Array(commandLine.utf8))
      bus.out8(DebugExit.standardPort, UInt8(min(failures, Int(Int8.max))))
    }
  }

  private func status(of ending: ShutdownReason) -> Int32 {
    switch ending {
    case .guestExit(let status):
      note("the guest ended with exit status \(status) (reported value \(status >> 1))")
      return status & 0xff
    case .signal(let number):
      note("ended by signal \(number); every request was completed first")
      return 128 + number
    case .reset:
      note("the guest reset the machine")
      return 0
    case .powerOff:
      note("the guest switched the machine off")
      return 0
    case .guestFault:
      return 1
    case .hostRequest, .hostReset:
      return 0
    }
  }

  // MARK: The monitor

  private func qmpAddress() throws -> MonitorAddress? {
    guard let qmp else { return nil }
    let address = try Endpoint(qmp, option: "--qmp").monitorAddress(option: "--qmp")
    if address == .standardIO && serial == "stdio" {
      throw UsageError("--qmp stdio: the serial port is there; write --serial file:PATH")
    }
    return address
  }

  private func startMonitor(at address: MonitorAddress, of assembled: AssembledMachine) throws -> Monitor {
    var settings = MonitorSettings()
    settings.package = "spindle \(Spindle.version)"
    let monitor = Monitor(target: MachineControl(assembled), address: address, settings: settings)
    try monitor.start()
    monitor.waitForClient()
    return monitor
  }

  // MARK: Options

  private func acceleratorChoice() throws -> AcceleratorChoice {
    guard let choice = AcceleratorChoice(rawValue: accel) else {
      throw UsageError("--accel \(accel): unknown; choose one of auto, kvm, hosted")
    }
    if choice == .hosted && kernel != "builtin" {
      throw UsageError("--kernel \(kernel): hosted runs the built-in guest only; use --accel kvm or leave --kernel out")
    }
    return choice
  }

  private func machineConfiguration() throws -> MachineConfiguration {
    var configuration = MachineConfiguration()
    configuration.memoryBytes = try ByteSize.parse(memory, option: "--memory", defaultUnit: 1 << 20)
    do {
      try MachineMemory.check(byteCount: configuration.memoryBytes)
    } catch {
      throw UsageError("--memory \(memory): \(error)")
    }
    guard (1...MachineConfiguration.processorsMax).contains(cpus) else {
      throw UsageError("--cpus \(cpus): give a number from 1 to \(MachineConfiguration.processorsMax)")
    }
    configuration.processorCount = cpus
    configuration.usesIOThreads = iothread
    configuration.pollNsMax = pollNsMax
    configuration.monitor = try LoopOption.monitor(loop)
    configuration.wakePolicy = try LoopOption.wakePolicy(wake)
    configuration.submission = try LoopOption.submission(submit)
    if configuration.submission == .vcpu && configuration.monitor == .ioUring {
      throw UsageError("--submit vcpu: does not go with --loop io_uring; use --loop auto, poll or epoll")
    }
    for (index, text) in drive.enumerated() {
      configuration.drives.append(try DriveConfiguration(parsing: text, index: index))
    }
    return configuration
  }

  /// Takes KVM where it works and the guest needs it, and says why it took what it took.
  private func pick(_ choice: AcceleratorChoice) throws -> (AcceleratorChoice, String) {
    if choice == .hosted { return (.hosted, "asked for; the built-in guest runs on threads of this process") }
    switch KVMAccelerator.probe() {
    case .usable:
      return (.kvm, choice == .kvm ? "asked for" : "/dev/kvm works")
    case .unusable(let reason) where choice == .kvm:
      throw SetupError("--accel kvm: \(reason); use --accel hosted for the built-in guest")
    case .unusable(let reason) where kernel != "builtin":
      throw SetupError("--kernel \(kernel): needs KVM, but \(reason)")
    case .unusable(let reason):
      return (.hosted, reason)
    }
  }

  private func kernelImage() throws -> [UInt8] {
    if kernel == "builtin" { return GuestImage.testguest }
    do {
      return try readWholeFile(kernel)
    } catch {
      throw SetupError("--kernel \(kernel): \(SystemError.text(of: error.code))")
    }
  }

  private func serialSink() throws -> DescriptorSink {
    if serial == "stdio" { return DescriptorSink(borrowing: STDOUT_FILENO) }
    guard serial.hasPrefix("file:"), serial.count > 5 else {
      throw UsageError("--serial \(serial): write stdio or file:PATH")
    }
    let path = String(serial.dropFirst(5))
    do {
      return try DescriptorSink(path: path)
    } catch {
      throw SetupError("--serial \(serial): \(SystemError.text(of: error.code))")
    }
  }

  private func note(_ line: String) { StandardError.print("spindle: \(line)") }
}
