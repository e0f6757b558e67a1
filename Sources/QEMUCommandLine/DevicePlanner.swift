// SPDX-License-Identifier: Apache-2.0
import Assembly

/// Puts drives and devices together: which disk is where, with what properties.
struct DevicePlanner {
  private(set) var drives: [DriveConfiguration] = []
  private(set) var spares: [DriveConfiguration] = []
  /// Nodes that stand on others, and those.
  private(set) var lowerNodes: [String: String] = [:]
  private(set) var debugExitPort: UInt16?
  /// The name of an AHCI controller that is a card rather than the board's.
  private(set) var controllerCard: String?

  private var nodes: BlockNodes
  private let devices: [String]
  private let globals: [(driver: String, property: String, value: String)]
  private let hasDefaults: Bool
  private let hasChannels: Bool
  private var threadNames: Set<String> = []
  /// Names of AHCI controllers: the board's own, and what a user calls it with `-device ich9-ahci,id=NAME`.
  private var controllers: Set<String> = ["ide"]
  /// Ports that have a drive, and those that a device names.
  private var takenPorts: Set<Int> = []

  private static let ports = 0...5
  /// Channels of the older PC's controller.
  private static let channelCount = 2
  /// The device has four ports.
  private static let lastExitPort = 0xfffc
  private static let exitPortDefault = 0x501
  private static let controllerNames: Set<String> = ["ich9-ahci", "ahci"]
  private static let diskNames: Set<String> = ["ide-hd", "ide-drive", "ide-cd"]
  private static let virtioNames: Set<String> = [
    "virtio-blk-pci", "virtio-blk-pci-transitional", "virtio-blk-pci-non-transitional", "virtio-blk-device",
    "virtio-blk",
  ]
  /// The names of the devices that there are.
  static let deviceNames = (diskNames.union(virtioNames)).union(["ich9-ahci", "isa-debug-exit"]).sorted()

  /// - Parameter board: the older PC's channels have two units each, a SATA port has one.
  init(_ words: OptionWords, board: QEMUPlan.Board) throws(UsageError) {
    hasChannels = board == .pc
    nodes = try BlockNodes(words, isSnapshot: words.has("snapshot"), board: board)
    devices = words.all("device")
    globals = try words.all("global").map { text throws(UsageError) in try Self.global(text) }
    hasDefaults = !words.has("nodefaults")
    for text in words.all("object") {
      var list = try KeyValueList(text, option: "-object", implied: "qom-type")
      let type = list.take("qom-type") ?? ""
      // Another part of the plan.
      if type == "monitor-qmp" { continue }
      guard type == "iothread" else {
        throw UsageError("-object \(text): there are objects of the types iothread and monitor-qmp only")
      }
      guard let id = list.take("id") else { throw UsageError("-object \(text): has no id=NAME") }
      try list.checkName("id", id)
      guard threadNames.insert(id).inserted else {
        throw UsageError("-object \(text): id=\(id) is given twice; choose another")
      }
      list.ignore("poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch", "thread-pool-min", "thread-pool-max")
      try list.finish()
    }
  }

  private static func global(
    _ text: String
  ) throws(UsageError) -> (driver: String, property: String, value: String) {
    if text.hasPrefix("driver=") {
      var list = try KeyValueList(text, option: "-global")
      guard let driver = list.take("driver"), let property = list.take("property"), let value = list.take("value")
      else { throw UsageError("-global \(text): write driver=NAME,property=NAME,value=VALUE") }
      return (driver, property, value)
    }
    guard let dot = text.firstIndex(of: "."), let equals = text.firstIndex(of: "="), dot < equals else {
      throw UsageError("-global \(text): write DRIVER.PROPERTY=VALUE")
    }
    return (
      String(text[..<dot]), String(text[text.index(after: dot)..<equals]),
      String(text[text.index(after: equals)...])
    )
  }

  // MARK: Planning

  /// Goes through the devices in order, then through drives that are attached by themselves.
  mutating func plan() throws(UsageError) {
    let lists = try devices.map { text throws(UsageError) in
      try KeyValueList(text, option: "-device", implied: "driver")
    }
    // Whoever names a port has it, wherever it stands. Of the others a drive of if=ide is there before any device, on the
    // ports from 0 up.
    try checkNames(lists)
    for list in lists { nameController(list) }
    let reserved = try reservePorts(lists)
    try attachOwn()
    for (place, list) in lists.enumerated() { try add(list, port: reserved[place]) }
    for source in nodes.sources { lowerNodes[source.name] = source.lower }
    for source in nodes.sources where !source.isTaken {
      guard source.isEmpty else {
        spares.append(try makeDrive(source.keys, name: source.name, more: [("if", "virtio")]))
        continue
      }
      spares.append(DriveConfiguration(source: .empty, id: source.name))
    }
  }

  private mutating func attachOwn() throws(UsageError) {
    for (index, source) in nodes.sources.enumerated() {
      guard let interface = source.interface else { continue }
      nodes.take(index)
      switch interface {
      case .virtio: drives.append(try makeDrive(source.keys, name: source.name, more: [("if", "virtio")]))
      case .ide:
        let port = try takePort(source)
        var keys = source.keys
        // QEMU has a serial number for each; the properties of the device that it makes are set by -global.
        try apply("ide-\(source.isDisc ? "cd" : "hd")", to: &keys)
        drives.append(
          try makeDrive(
            keys, name: source.name,
            more: [("if", "ahci"), ("port", "\(port)")] + (source.isDisc ? [("media", "cdrom")] : [])))
      }
    }
  }

  private mutating func takePort(_ source: BlockNodes.Source) throws(UsageError) -> Int {
    let free = Self.ports.first { port in
      !takenPorts.contains(port)
        && !nodes.sources.contains { $0.interface == .ide && $0.hasOwnIndex && $0.index == port }
    }
    if source.hasOwnIndex, let index = source.index {
      guard Self.ports.contains(index), takenPorts.insert(index).inserted else {
        throw UsageError("-drive: index=\(index): that port is taken, or there is none; ports are 0 to 5")
      }
      return index
    }
    guard let free else {
      throw UsageError("-drive: id=\(source.name): there is no free port for it; ports are 0 to 5")
    }
    takenPorts.insert(free)
    return free
  }

  private func checkNames(_ lists: [KeyValueList]) throws(UsageError) {
    var names: Set<String> = []
    for list in lists {
      guard let id = list["id"] else { continue }
      try list.checkName("id", id)
      guard names.insert(id).inserted else {
        throw UsageError("-device \(list["driver"] ?? ""): id=\(id) is given twice; choose another")
      }
    }
  }

  /// Properties that our own option has under the same names.
  private static let ownProperties: Set<String> = [
    "serial", "ver", "cyls", "heads", "secs", "lcyls", "lheads", "lsecs", "bios-chs-trans", "werror", "rerror",
    "discard",
    "cache.writeback",
  ]

  /// What is left of a device's properties must be ours: other keys of our own option are the drive's affair.
  private func checkProperties(_ list: KeyValueList, driver: String) throws(UsageError) {
    guard let other = list.keys.first(where: { !Self.ownProperties.contains($0) }) else { return }
    throw UsageError("-device \(driver): there is no property '\(other)' (\(other)=\(list[other] ?? "")); leave it out")
  }

  private mutating func nameController(_ list: KeyValueList) {
    guard let driver = list["driver"], Self.controllerNames.contains(driver) else { return }
    if let id = list["id"] { controllers.insert(id) }
    controllerCard = list["id"] ?? "ahci"
  }

  /// The ports of the disks that name one, by their places in `lists`. Who names one unit of a channel comes before who
  /// takes either.
  private mutating func reservePorts(_ lists: [KeyValueList]) throws(UsageError) -> [Int: Int] {
    var reserved: [Int: Int] = [:]
    for choices in 1...2 {
      for (place, list) in lists.enumerated() {
        guard let driver = list["driver"], Self.diskNames.contains(driver) else { continue }
        let wanted = try wantedPorts(list, driver: driver)
        guard wanted.count == choices else { continue }
        guard let free = wanted.first(where: { !takenPorts.contains($0) }) else {
          let unit = list["unit"].map { ",unit=\($0)" } ?? ""
          throw UsageError("-device \(driver): bus=\(list["bus"] ?? "")\(unit) is taken; choose another port")
        }
        takenPorts.insert(free)
        reserved[place] = free
      }
    }
    return reserved
  }

  /// The ports that a disk asks for; none where it does not. The two units of a channel of the older PC are two ports.
  private func wantedPorts(_ list: KeyValueList, driver: String) throws(UsageError) -> [Int] {
    var list = list
    let unit = try list.takeNumber("unit", in: 0...1)
    var channel: Int?
    var port: Int?
    if let bus = list["bus"] {
      let parts = bus.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
      guard parts.count == 2, controllers.contains(parts[0]), let number = Int(parts[1]), Self.ports.contains(number)
      else { throw UsageError("-device \(driver): bus=\(bus) is unknown; write bus=ide.0 to bus=ide.5") }
      if hasChannels, parts[0] == "ide", number < Self.channelCount { channel = number } else { port = number }
    }
    if let channel { return unit.map { [2 * channel + $0] } ?? [2 * channel, 2 * channel + 1] }
    if unit == 1 {
      throw UsageError("-device \(driver): unit=1: a port has one drive; write bus=ide.0 to bus=ide.5")
    }
    return port.map { [$0] } ?? []
  }

  /// - Parameter port: the port that it has asked for.
  private mutating func add(_ list: KeyValueList, port: Int?) throws(UsageError) {
    var list = list
    let driver = list.take("driver") ?? ""
    switch driver {
    case _ where Self.diskNames.contains(driver): try addDisk(driver, list, port: port)
    case _ where Self.virtioNames.contains(driver): try addVirtio(driver, list)
    case _ where Self.controllerNames.contains(driver): try addController(list)
    case "isa-debug-exit":
      debugExitPort = UInt16(try list.takeNumber("iobase", in: 0...Self.lastExitPort) ?? Self.exitPortDefault)
      list.ignore("iosize", "id")
      try list.finish()
    default:
      throw UsageError(
        "-device \(driver): there is no such device; there are \(Self.deviceNames.joined(separator: ", "))")
    }
  }

  private func addController(_ list: KeyValueList) throws(UsageError) {
    var list = list
    // The board's controller takes the place of one that is added: there is one in a machine.
    list.ignore("id", "addr", "bus", "multifunction")
    try list.finish()
  }

  /// Properties that `-global` gives to a driver's devices, where the device has none of its own.
  private func apply(_ driver: String, to list: inout KeyValueList) throws(UsageError) {
    let names =
      driver.hasPrefix("virtio-blk") ? [driver, "virtio-blk-pci", "virtio-blk-device"] : [driver, "ide-device"]
    for global in globals where names.contains(global.driver) && list[global.property] == nil {
      list.set(global.property, global.value)
    }
  }

  // MARK: Disks on AHCI ports

  private mutating func addDisk(_ driver: String, _ properties: KeyValueList, port reserved: Int?) throws(UsageError) {
    var list = properties
    try apply(driver == "ide-drive" ? "ide-hd" : driver, to: &list)
    let isDisc = driver == "ide-cd"
    let device = list.take("id")
    let port: Int
    if let reserved { port = reserved } else { port = try takeLastPort(driver: driver) }
    list.ignore(
      "bus", "unit",
      "wwn", "model", "bootindex", "rotation_rate", "share-rw", "discard_granularity", "opt_io_size",
      "min_io_size", "backend_defaults", "account-invalid", "account-failed")
    try checkSectors(&list)
    try checkWriteCache(&list)
    let name = list.take("drive")
    try checkProperties(list, driver: driver)
    guard let name else {
      guard isDisc else { throw UsageError("-device \(driver): names no drive=") }
      let more = [("media", "cdrom"), ("port", "\(port)"), ("device-id", device ?? "")].filter { !$0.1.isEmpty }
      var drive = try makeDrive(list, name: device ?? "cd\(port)", more: more)
      drive.hasName = false
      drives.append(drive)
      return
    }
    let source = try takeSource(name, driver: driver)
    var keys = source.keys
    for (key, value) in list.remainder { keys.set(key, value) }
    var more = [("if", "ahci"), ("port", "\(port)")]
    if let device { more.append(("device-id", device)) }
    if isDisc || source.isDisc { more.append(("media", "cdrom")) }
    drives.append(try makeDrive(keys, name: source.name, more: more))
  }

  /// Without a bus, QEMU puts a disk on the last port that is free.
  private mutating func takeLastPort(driver: String) throws(UsageError) -> Int {
    guard let port = Self.ports.last(where: { !takenPorts.contains($0) }) else {
      throw UsageError("-device \(driver): every port of the controller is taken")
    }
    takenPorts.insert(port)
    return port
  }

  private func checkSectors(_ list: inout KeyValueList) throws(UsageError) {
    let logical = try list.takeNumber("logical_block_size", in: 512...(2 << 20)) ?? 512
    guard logical == 512 else {
      throw UsageError("-device: logical_block_size=\(logical): sectors have 512 bytes here")
    }
    list.ignore("physical_block_size")
  }

  private func checkWriteCache(_ list: inout KeyValueList) throws(UsageError) {
    switch list.take("write-cache") ?? "auto" {
    case "auto": break
    case "on": list.set("cache.writeback", "on")
    case "off": list.set("cache.writeback", "off")
    case let value: throw UsageError("-device: write-cache=\(value): choose on, off or auto")
    }
  }

  private mutating func takeSource(_ name: String, driver: String) throws(UsageError) -> BlockNodes.Source {
    guard let index = nodes.index(of: name) else {
      throw UsageError("-device \(driver): drive=\(name) names no drive or node that there is")
    }
    let source = nodes.sources[index]
    if source.isTaken { throw UsageError("-device \(driver): drive=\(name) is in use by another device") }
    nodes.take(index)
    return source
  }

  // MARK: virtio-blk

  private mutating func addVirtio(_ driver: String, _ properties: KeyValueList) throws(UsageError) {
    var list = properties
    try apply(driver, to: &list)
    guard let name = list.take("drive") else { throw UsageError("-device \(driver): names no drive=") }
    var more: [(String, String)] = []
    if driver == "virtio-blk-device" {
      more.append(("if", "virtio-mmio"))
      // As on QEMU, whose library for test programs knows no other registers.
      let forces = globals.last { $0.driver == "virtio-mmio" && $0.property == "force-legacy" }?.value ?? "on"
      if !["off", "no", "false"].contains(forces) { more.append(("transitional", "only")) }
    } else {
      more.append(("if", "virtio"))
      let isModern = try list.takeFlag("disable-legacy", default: driver == "virtio-blk-pci-non-transitional")
      let isLegacy = try list.takeFlag("disable-modern", default: false)
      if isLegacy, isModern {
        throw UsageError("-device \(driver): disable-modern=on: no driver finds a device without both interfaces")
      }
      if !isModern { more.append(("transitional", isLegacy ? "only" : "on")) }
      if let address = list.take("addr") { more.append(("addr", address)) }
    }
    if let id = list.take("id") { more.append(("device-id", id)) }
    if let value = list.take("num-queues") { more.append(("queues", value)) }
    if let value = list.take("queue-size") { more.append(("queue-size", value)) }
    if let value = list.take("request-merging") { more.append(("merge", value)) }
    if let thread = list.take("iothread") {
      guard threadNames.contains(thread) else {
        throw UsageError("-device \(driver): iothread=\(thread): write -object iothread,id=\(thread) too")
      }
      more.append(("iothread", "on"))
    }
    if try list.takeFlag("packed", default: false) {
      throw UsageError("-device \(driver): packed=on: there are split virtqueues only")
    }
    if let bus = list.take("bus"), !Self.isRootBus(bus, ofBoardDevice: driver == "virtio-blk-device") {
      throw UsageError("-device \(driver): bus=\(bus): there is no such bus; leave bus= out")
    }
    list.ignore(
      "bootindex", "ioeventfd", "vectors", "share-rw", "seg-max-adjust", "event_idx", "indirect_desc",
      "config-wce",
      "write-zeroes", "scsi", "any_layout", "iommu_platform", "ats", "modern-pio-notify", "class", "page-per-vq",
      "physical_block_size", "discard_granularity", "multifunction", "rombar")
    try checkSectors(&list)
    try checkWriteCache(&list)
    try checkProperties(list, driver: driver)
    let source = try takeSource(name, driver: driver)
    var keys = source.keys
    for (key, value) in list.remainder { keys.set(key, value) }
    drives.append(try makeDrive(keys, name: source.name, more: more))
  }

  /// The PCI bus as q35 and the older PC call it, or a place on the board; there are no bridges.
  private static func isRootBus(_ name: String, ofBoardDevice isOnBoard: Bool) -> Bool {
    isOnBoard ? name.hasPrefix("virtio-mmio-bus.") : ["pcie.0", "pci.0"].contains(name)
  }

  // MARK: Drives

  /// Has our own option read what was put together, so that both check the same.
  private func makeDrive(
    _ keys: KeyValueList, name: String, more: [(String, String)]
  ) throws(UsageError) -> DriveConfiguration {
    let pairs = keys.remainder + more.map { (key: $0.0, value: $0.1) } + [(key: "id", value: name)]
    let text = pairs.map { "\($0.key)=\(OptionList.written($0.value))" }.joined(separator: ",")
    var drive: DriveConfiguration
    do throws(UsageError) { drive = try DriveConfiguration(parsing: text, index: 0) } catch {
      throw UsageError(error.description.replacing("--drive", with: keys.option))
    }
    // A node is in a drive without a name.
    drive.hasName = drive.nodeName != name
    return drive
  }
}
