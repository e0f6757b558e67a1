// SPDX-License-Identifier: Apache-2.0
import Assembly

/// Puts drives and devices together: which disk is where, with what properties.
struct DevicePlanner {
  private(set) var drives: [DriveConfiguration] = []
  private(set) var spares: [DriveConfiguration] = []
  /// Nodes that stand on others, and those.
  private(set) var lowerNodes: [String: String] = [:]
  private(set) var debugExitPort: UInt16?

  private var nodes: BlockNodes
  private let devices: [String]
  private let globals: [(driver: String, property: String, value: String)]
  private let hasDefaults: Bool
  private var threadNames: Set<String> = []
  /// Names of AHCI controllers: the board's own, and what a user calls it with `-device ich9-ahci,id=NAME`.
  private var controllers: Set<String> = ["ide"]
  /// Ports that have a drive, and those that a device names.
  private var takenPorts: Set<Int> = []

  private static let ports = 0...5
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

  init(_ words: OptionWords, board: QEMUPlan.Board) throws(UsageError) {
    nodes = try BlockNodes(words, isSnapshot: words.has("snapshot"), board: board)
    devices = words.all("device")
    globals = try words.all("global").map { text throws(UsageError) in try Self.global(text) }
    hasDefaults = !words.has("nodefaults")
    for text in words.all("object") {
      var list = try KeyValueList(text, option: "-object", implied: "qom-type")
      let type = list.take("qom-type") ?? ""
      guard type == "iothread" else {
        throw UsageError("-object \(text): there are objects of the type iothread only")
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
    for list in lists { try reservePort(list) }
    try attachOwn()
    for list in lists { try add(list) }
    for source in nodes.sources { lowerNodes[source.name] = source.lower }
    for source in nodes.sources where !source.isTaken {
      spares.append(try makeDrive(source.keys, name: source.name, more: [("if", "virtio")]))
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
    "serial", "ver", "cyls", "heads", "secs", "lcyls", "lheads", "lsecs", "werror", "rerror", "discard",
    "cache.writeback",
  ]

  /// What is left of a device's properties must be ours: other keys of our own option are the drive's affair.
  private func checkProperties(_ list: KeyValueList, driver: String) throws(UsageError) {
    guard let other = list.keys.first(where: { !Self.ownProperties.contains($0) }) else { return }
    throw UsageError("-device \(driver): there is no property '\(other)' (\(other)=\(list[other] ?? "")); leave it out")
  }

  private mutating func nameController(_ list: KeyValueList) {
    guard let driver = list["driver"], Self.controllerNames.contains(driver), let id = list["id"] else { return }
    controllers.insert(id)
  }

  /// Takes the port that a disk names.
  private mutating func reservePort(_ list: KeyValueList) throws(UsageError) {
    guard let driver = list["driver"], Self.diskNames.contains(driver), let bus = list["bus"] else { return }
    guard takenPorts.insert(try port(ofBus: bus, driver: driver)).inserted else {
      throw UsageError("-device \(driver): bus=\(bus) is taken; choose another port")
    }
  }

  private func port(ofBus bus: String, driver: String) throws(UsageError) -> Int {
    let parts = bus.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 2, controllers.contains(parts[0]), let port = Int(parts[1]), Self.ports.contains(port) else {
      throw UsageError("-device \(driver): bus=\(bus) is unknown; write bus=ide.0 to bus=ide.5")
    }
    return port
  }

  private mutating func add(_ list: KeyValueList) throws(UsageError) {
    var list = list
    let driver = list.take("driver") ?? ""
    switch driver {
    case _ where Self.diskNames.contains(driver): try addDisk(driver, list)
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

  private mutating func addDisk(_ driver: String, _ properties: KeyValueList) throws(UsageError) {
    var list = properties
    try apply(driver == "ide-drive" ? "ide-hd" : driver, to: &list)
    let isDisc = driver == "ide-cd"
    let device = list.take("id")
    let port = try takePort(&list, driver: driver)
    list.ignore(
      "wwn", "model", "bootindex", "rotation_rate", "share-rw", "discard_granularity", "opt_io_size",
      "min_io_size", "bios-chs-trans", "backend_defaults", "account-invalid", "account-failed")
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
  private mutating func takePort(_ list: inout KeyValueList, driver: String) throws(UsageError) -> Int {
    // A port has one drive, so there is one unit.
    if let unit = list.take("unit"), CNumber.parse(unit) != 0 {
      throw UsageError("-device \(driver): unit=\(unit): a port has one drive; write bus=ide.0 to bus=ide.5")
    }
    guard let bus = list.take("bus") else {
      guard let port = Self.ports.last(where: { !takenPorts.contains($0) }) else {
        throw UsageError("-device \(driver): every port of the controller is taken")
      }
      takenPorts.insert(port)
      return port
    }
    // It was reserved before.
    return try port(ofBus: bus, driver: driver)
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
    } else {
      more.append(("if", "virtio"))
      let isModern = try list.takeFlag("disable-legacy", default: driver == "virtio-blk-pci-non-transitional")
      let isLegacy = try list.takeFlag("disable-modern", default: false)
      if isLegacy { throw UsageError("-device \(driver): disable-modern=on: the modern registers are always there") }
      if !isModern { more.append(("transitional", "on")) }
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
    list.ignore(
      "bus", "bootindex", "ioeventfd", "vectors", "share-rw", "seg-max-adjust", "event_idx", "indirect_desc",
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
