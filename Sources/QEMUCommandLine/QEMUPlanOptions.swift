// SPDX-License-Identifier: Apache-2.0
// The options that concern the machine as a whole.
import Assembly
import Machine
import Monitor

extension QEMUPlan {
  // MARK: Board and accelerator

  mutating func readBoard(_ words: OptionWords) throws(UsageError) {
    var asked: [String] = words.all("accel")
    for text in words.all("machine") {
      var list = try KeyValueList(text, option: "-machine", implied: "type")
      if let type = list.take("type") { board = try Self.board(type) }
      if let accelerators = list.take("accel") { asked += accelerators.split(separator: ":").map(String.init) }
      boot.checksFloppy = try list.takeFlag("fd-bootchk", default: boot.checksFloppy)
      // What these choose changes nothing of what is emulated here.
      list.ignore(
        "usb", "vmport", "smm", "sata", "pit", "pic", "i8042", "hpet", "acpi", "graphics", "dump-guest-core",
        "mem-merge", "kernel_irqchip", "kernel-irqchip", "max-ram-below-4g", "nvdimm", "suppress-vmdesc")
      try list.finish()
    }
    firstDiskSlot = Self.firstSlot(of: board, words)
    if words.has("enable-kvm") { asked.append("kvm") }
    accelerator = try Self.accelerator(asked, hasClient: words.has("qtest"))
  }

  private static func board(_ name: String) throws(UsageError) -> Board {
    if name == "none" { return .none }
    // Versions of a board differ in what nobody can see here.
    if name == "q35" || name.hasPrefix("pc-q35-") { return .q35 }
    if name == "pc" || name.hasPrefix("pc-i440fx-") { return .pc }
    throw UsageError("-machine \(name): unknown; there are q35, pc and none")
  }

  /// The host bridge comes first, on the older PC its south bridge next, then the adapters that a machine has by default.
  private static func firstSlot(of board: Board, _ words: OptionWords) -> Int {
    let bridges = board == .pc ? 2 : 1
    let hasDisplay = words.last("vga").map { $0 != "none" } ?? !words.has("nodefaults")
    let hasNetwork = !words.has("nodefaults") && !["net", "nic", "netdev"].contains(where: words.has)
    return bridges + (hasDisplay ? 1 : 0) + (hasNetwork ? 1 : 0)
  }

  private static func accelerator(_ asked: [String], hasClient: Bool) throws(UsageError) -> Accelerator {
    // As QEMU: the first one that is there.
    for text in asked {
      let name = String(text.prefix { $0 != "," })
      if let known = Accelerator(rawValue: name) { return known }
      guard ["tcg", "hax", "hvf", "xen", "whpx", "nvmm"].contains(name) else {
        throw UsageError("-accel \(text): unknown; there are qtest and kvm")
      }
    }
    if asked.isEmpty { return hasClient ? .qtest : .kvm }
    // A client drives the machine all the same: no instruction is executed then.
    if hasClient { return .qtest }
    throw UsageError("-accel \(asked[0]): Spindle executes no instructions itself; use -accel kvm, or -accel qtest")
  }

  // MARK: Size

  mutating func readSize(_ words: OptionWords) throws(UsageError) {
    if let text = words.last("m") {
      var list = try KeyValueList(text, option: "-m", implied: "size")
      list.ignore("slots", "maxmem")
      let size = list.take("size") ?? "128"
      try list.finish()
      memoryBytes = try ByteSize.parse(size, option: "-m", defaultUnit: 1 << 20)
      do throws(MachineMemory.SizeError) { try MachineMemory.check(byteCount: memoryBytes) } catch {
        throw UsageError("-m \(text): \(error)")
      }
    }
    if let text = words.last("smp") {
      var list = try KeyValueList(text, option: "-smp", implied: "cpus")
      list.ignore("sockets", "dies", "clusters", "cores", "threads", "maxcpus")
      processorCount = try list.takeNumber("cpus", in: 1...MachineConfiguration.processorsMax) ?? 1
      try list.finish()
    }
  }

  // MARK: Endpoints

  /// The dialect of a version as a user writes it: `7.2` or `10.0`.
  /// - Parameter variable: where it was written, for the error.
  public static func dialect(named text: String, variable: String) throws(UsageError) -> MonitorSettings.Dialect {
    switch text {
    case "7.2": return .v7
    case "10.0": return .v10
    default: throw UsageError("\(variable)=\(text): unknown; choose 7.2 or 10.0")
    }
  }

  mutating func readEndpoints(_ words: OptionWords) throws(UsageError) {
    var chardevs: [String: Endpoint] = [:]
    var named: [CharacterDevice] = []
    for text in words.all("chardev") {
      let (id, endpoint) = try Endpoint.chardev(text)
      if chardevs[id] != nil { throw UsageError("-chardev \(text): id=\(id) is given twice") }
      chardevs[id] = endpoint
      named.append(CharacterDevice(label: id, filename: endpoint.filename, isInUse: false))
    }
    func endpoint(_ text: String, _ option: String, _ label: String) throws(UsageError) -> Endpoint {
      let name = text.hasPrefix("chardev:") ? String(text.dropFirst("chardev:".count)) : text
      if let index = named.firstIndex(where: { $0.label == name }), let known = chardevs[name] {
        named[index].isInUse = true
        return known
      }
      let endpoint = try Endpoint(text, option: option)
      named.append(CharacterDevice(label: label, filename: endpoint.filename, isInUse: true))
      return endpoint
    }
    if let text = words.last("qtest") { qtest = try endpoint(text, "-qtest", "qtest") }
    if let path = words.last("qtest-log") { qtestLog = path == "none" ? "/dev/null" : path }
    for text in words.all("qmp") + words.all("qmp-pretty") where text != "none" {
      monitors.append(try endpoint(text, "-qmp", "compat_monitor\(monitors.count)"))
    }
    for text in words.all("mon") {
      var list = try KeyValueList(text, option: "-mon", implied: "chardev")
      let mode = list.take("mode") ?? "readline"
      list.ignore("pretty")
      guard let id = list.take("chardev"), let known = chardevs[id] else {
        throw UsageError("-mon \(text): names no chardev that there is")
      }
      try list.finish()
      guard mode == "control" else {
        throw UsageError("-mon \(text): the monitor speaks QMP only; write mode=control")
      }
      monitors.append(known)
      if let index = named.firstIndex(where: { $0.label == id }) { named[index].isInUse = true }
    }
    try readMonitorObjects(words, chardevs)
    if words.has("audio") { dialect = .v10 }
    for text in words.all("monitor") where !["none", "null"].contains(text) {
      throw UsageError("-monitor \(text): the monitor speaks QMP only; write -qmp \(text), or -monitor none")
    }
    try readSerial(words) { text throws(UsageError) in try endpoint(text, "-serial", "serial0") }
    characterDevices = named
    // The protocols would be mixed up with each other.
    let users = [("-qtest", qtest), ("-serial", serial)] + monitors.map { ("-qmp", $0) }
    let options = users.filter { $0.1 == .stdio }.map(\.0)
    if options.count > 1 {
      throw UsageError("\(options[1]) stdio: \(options[0]) is there already; write another address for one of them")
    }
  }

  /// Monitors in the form that QEMU's newest test library writes.
  private mutating func readMonitorObjects(
    _ words: OptionWords, _ chardevs: [String: Endpoint]
  ) throws(UsageError) {
    for text in words.all("object") {
      var list = try KeyValueList(text, option: "-object", implied: "qom-type")
      guard list.take("qom-type") == "monitor-qmp" else { continue }
      guard list.take("id") != nil else { throw UsageError("-object \(text): has no id=NAME") }
      list.ignore("pretty")
      guard let id = list.take("chardev"), let known = chardevs[id] else {
        throw UsageError("-object \(text): names no chardev that there is")
      }
      try list.finish()
      monitors.append(known)
    }
  }

  private mutating func readSerial(
    _ words: OptionWords, _ endpoint: (String) throws(UsageError) -> Endpoint
  ) throws(UsageError) {
    // Where another one is on the terminal, `-nographic` has no serial port there.
    let isFree = qtest != .stdio && !monitors.contains(.stdio)
    let byItself = words.has("nographic") && isFree ? "stdio" : nil
    guard let text = words.all("serial").first ?? byItself, text != "none" else { return }
    serial = try endpoint(text == "mon:stdio" ? "stdio" : text)
    switch serial {
    case .stdio, .file, .null: break
    case .unix, .loopback, .descriptor: throw UsageError("-serial \(text): write stdio, file:PATH or none")
    }
    if words.all("serial").count > 1, words.all("serial").dropFirst().contains(where: { $0 != "none" && $0 != "null" })
    {
      throw UsageError("-serial \(words.all("serial")[1]): there is one serial port")
    }
  }

  // MARK: Boot

  mutating func readBoot(_ words: OptionWords) throws(UsageError) {
    kernel = words.last("kernel")
    commandLine = words.last("append") ?? ""
    if words.has("append"), kernel == nil { throw UsageError("-append: goes with -kernel only") }
    if let path = words.last("initrd") {
      throw UsageError("-initrd \(path): guests are started by their PVH note alone; leave -initrd out")
    }
    for text in words.all("fw_cfg") {
      var list = try KeyValueList(text, option: "-fw_cfg", implied: "name")
      guard let name = list.take("name"), !name.isEmpty else { throw UsageError("-fw_cfg \(text): has no name=") }
      if let content = list.take("string") {
        firmwareFiles.append(FirmwareFile(name: name, source: .text(content)))
      } else if let path = list.take("file") {
        firmwareFiles.append(FirmwareFile(name: name, source: .file(path: path)))
      } else {
        throw UsageError("-fw_cfg \(text): write string=TEXT or file=PATH")
      }
      try list.finish()
    }
    if let text = words.last("rtc") {
      var list = try KeyValueList(text, option: "-rtc", implied: "base")
      clockBase = list.take("base") ?? "utc"
      list.ignore("clock", "driftfix")
      try list.finish()
    }
  }

  // MARK: Switches, and what is refused

  mutating func readSwitches(_ words: OptionWords) throws(UsageError) {
    startsPaused = words.has("S")
    // The last of those that concern the same thing counts.
    for option in words.options {
      switch option.name {
      case "no-reboot": endsAtReset = true
      case "no-shutdown": staysAtShutdown = true
      case "action": try readActions(option.value)
      default: break
      }
    }
    try readLife(words)
    name = words.last("name").map { String($0.prefix { $0 != "," }) }
    pidFile = words.last("pidfile")
    let refused = [
      "incoming": "live migration is not offered", "daemonize": "start it in the background with a shell's &",
      "icount": "instructions are not counted", "loadvm": "there are no saved states",
    ]
    for option in words.options {
      if let reason = refused[option.name] {
        throw UsageError("-\(option.name)\(option.value.isEmpty ? "" : " " + option.value): \(reason)")
      }
    }
    for (option, value) in words.options.map({ ($0.name, $0.value) }) where ["net", "nic", "netdev"].contains(option) {
      if value != "none" { throw UsageError("-\(option) \(value): there is no network; write -nic none") }
    }
    if let text = words.last("display"), !text.hasPrefix("none") {
      throw UsageError("-display \(text): there is no window; write -display none")
    }
  }

  /// How the process lives. QEMU's test library of the age after 10.1 always writes `-run-with exit-with-parent=on`.
  private mutating func readLife(_ words: OptionWords) throws(UsageError) {
    for text in words.all("run-with") {
      var list = try KeyValueList(text, option: "-run-with")
      endsWithParent = try list.takeFlag("exit-with-parent", default: endsWithParent)
      // It is about how fast memory is given back.
      list.ignore("async-teardown")
      for key in ["chroot", "user"] {
        if let value = list.take(key) {
          throw UsageError("-run-with \(key)=\(value): is not offered; start the process as it is to run")
        }
      }
      try list.finish()
    }
  }

  /// What happens then. No device tells of a panic or a watchdog, so what is to happen then is checked and changes nothing.
  private static let actions = [
    "reboot": ["reset", "shutdown"], "shutdown": ["poweroff", "pause"],
    "panic": ["pause", "shutdown", "exit-failure", "none"],
    "watchdog": ["reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi"],
  ]

  private mutating func readActions(_ text: String) throws(UsageError) {
    let list = try KeyValueList(text, option: "-action")
    for (event, action) in list.remainder {
      guard let choices = Self.actions[event] else {
        throw UsageError(
          "-action \(text): unknown key '\(event)'; keys are \(Self.actions.keys.sorted().joined(separator: ", "))")
      }
      guard choices.contains(action) else {
        throw UsageError("-action \(event)=\(action) is unknown; choose one of \(choices.joined(separator: ", "))")
      }
      switch event {
      case "reboot": endsAtReset = action == "shutdown"
      case "shutdown": staysAtShutdown = action == "pause"
      default: break
      }
    }
  }
}
