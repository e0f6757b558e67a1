// SPDX-License-Identifier: Apache-2.0
// Each command's return and its mistakes, on a machine that does what the test says. Shapes and texts as of QEMU 7.2.
import Assembly
import Block
import CPNG
import Glibc
import HostSystem
import Machine
import Testing

@testable import Monitor

@Suite struct MachineCommandTests {
  @Test(arguments: [
    (RunState.running, true), (.paused, false), (.prelaunch, false), (.ioError, false), (.shutdown, false),
  ])
  func statusTellsWhetherTheGuestRuns(state: RunState, isRunning: Bool) throws {
    let kit = try MonitorKit()
    kit.target.runState = state
    let expected: JSONValue = ["status": .string(state.rawValue), "running": .bool(isRunning), "singlestep": false]
    #expect(try kit.value("query-status") == expected)
  }

  @Test func factsAboutTheMachine() throws {
    let kit = try MonitorKit()
    #expect(try kit.value("query-version")["qemu"] == ["major": 7, "minor": 2, "micro": 0])
    #expect(try kit.value("query-name") == [:])
    kit.target.machineName = "m"
    #expect(try kit.value("query-name") == ["name": "m"])
    #expect(try kit.value("query-kvm") == ["enabled": false, "present": true])
    let device = try #require(try kit.value("query-chardev").elements?.first)
    #expect(device["label"] == "compat_monitor0" && device["frontend-open"] == true)
  }

  @Test func everyCommandThatIsListedIsThere() throws {
    let kit = try MonitorKit()
    let names = try #require(try kit.value("query-commands").elements).compactMap { $0["name"]?.text }
    #expect(Set(names).count == names.count && names.contains("qmp_capabilities") && names.contains("quit"))
    for name in names where !["qmp_capabilities", "quit", "system_reset"].contains(name) {
      let reply = try kit.execute(name, #"{"x-none": 1}"#).last
      #expect(reply?["error"]?["class"] != "CommandNotFound", "\(name)")
    }
  }

  @Test func machinesHaveExactlyTheMembersThatAClientOfTheirAgeExpects() throws {
    let kit = try MonitorKit()
    let old: JSONValue = [
      ["name": "pc", "cpu-max": 64, "hotpluggable-cpus": false, "numa-mem-supported": false, "deprecated": false]
    ]
    #expect(try kit.value("query-machines") == old)
    var settings = MonitorKit.settings
    settings.dialect = .v10
    let newer = try MonitorKit(settings: settings)
    #expect(try newer.value("query-machines").elements?.first?["acpi"] == true)
    #expect(try newer.value("query-status")["singlestep"] == nil)
    #expect(try newer.value("query-version")["qemu"]?["major"] == 10)
  }

  @Test func stopAndContAreIdempotentForTheClient() throws {
    let kit = try MonitorKit()
    #expect(try kit.execute("stop").count == 2)
    #expect(try kit.execute("stop") == [["return": [:]]])
    kit.target.error = ControlError("no")
    #expect(try kit.failure("cont") == "GenericError: no")
    #expect(try kit.value("cont") == [:])
  }

  @Test(arguments: ["cont", "system_reset", "system_powerdown"])
  func whatTheMachineRefusesIsAnError(command: String) throws {
    let kit = try MonitorKit()
    kit.target.error = ControlError("not here")
    #expect(try kit.failure(command) == "GenericError: not here")
  }

  @Test func functionsOnTheBusAreListed() throws {
    let kit = try MonitorKit()
    let identity = PCIIdentity(
      vendor: 0x1af4, device: 0x1042, classCode: 0x010000, subsystemVendor: 0x1af4, subsystem: 2, interruptPin: 1)
    let function = PCIFunction(name: "v0", address: PCIAddress(device: 4, function: 1), identity: identity)
    function.addBAR(4, kind: .memory64(prefetchable: true), byteCount: 0x4000, block: RegisterBlock())
    function.addBAR(0, kind: .io, byteCount: 0x80, block: RegisterBlock())
    kit.target.pciFunctions = [function]
    let expected: JSONValue = [
      [
        "bus": 0,
        "devices": [
          [
            "bus": 0, "slot": 4, "function": 1, "class_info": ["class": 256, "desc": "SCSI controller"],
            "id": ["device": 0x1042, "vendor": 0x1af4, "subsystem": 2, "subsystem-vendor": 0x1af4], "irq": 0,
            "irq_pin": 1, "qdev_id": "v0",
            "regions": [
              ["bar": 0, "type": "io", "address": -1, "size": 128],
              ["bar": 4, "type": "memory", "address": -1, "size": 16384, "prefetch": true, "mem_type_64": true],
            ],
          ]
        ],
      ]
    ]
    #expect(try kit.value("query-pci") == expected)
  }

  @Test func screendumpWritesABlackPicture() throws {
    let kit = try MonitorKit()
    let path = "/var/tmp/spindle-monitor-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
    defer { unlink(path) }
    #expect(try kit.value("screendump", #"{"filename": "\#(path)"}"#) == [:])
    #expect(try readWholeFile(path) == Array("P6\n640 480\n255\n".utf8) + [UInt8](repeating: 0, count: 3 * 640 * 480))
    #expect(try kit.value("screendump", #"{"filename": "\#(path)", "format": "png"}"#) == [:])
    let bytes = try readWholeFile(path)
    var (width, height): (UInt32, UInt32) = (0, 0)
    var message = [CChar](repeating: 0, count: cpng_message_bytes)
    #expect(cpng_size(bytes, bytes.count, &width, &height, &message) == 1 && width == 640 && height == 480)
    #expect(
      try kit.failure("screendump", #"{"filename": "/nowhere/x"}"#)
        == "GenericError: failed to open file '/nowhere/x': No such file or directory")
    #expect(
      try kit.failure("screendump", #"{"filename": "x", "format": "gif"}"#)
        == "GenericError: Parameter 'format' does not accept value 'gif'")
    #expect(
      try kit.failure("screendump", #"{"filename": "x", "device": "v"}"#) == "DeviceNotFound: Device 'v' not found")
  }
}

@Suite struct DriveCommandTests {
  @Test func drivesAreDescribed() throws {
    let kit = try MonitorKit()
    let drives = try #require(try kit.value("query-block").elements)
    let inserted: JSONValue = [
      "node-name": "#block000", "drv": "raw", "file": "a.img", "ro": false, "backing_file_depth": 0,
      "encrypted": false, "detect_zeroes": "off", "write_threshold": 0, "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0,
      "iops_rd": 0, "iops_wr": 0, "cache": ["writeback": true, "direct": false, "no-flush": false],
      "image": ["filename": "a.img", "format": "raw", "virtual-size": 1_048_576, "dirty-flag": false],
    ]
    let disk: JSONValue = [
      "device": "d0", "qdev": "/machine/peripheral/v0/virtio-backend", "type": "unknown", "removable": false,
      "locked": false, "io-status": "ok", "inserted": inserted,
    ]
    #expect(drives[0] == disk)
    #expect(drives[1]["tray_open"] == false && drives[1]["removable"] == true && drives[1]["qdev"] == "cd0")
    kit.target.drives[1].medium = nil
    #expect(try kit.value("query-block").elements?[1]["inserted"] == nil)
  }

  @Test func countsAreExact() throws {
    let kit = try MonitorKit()
    let stats = try #require(try kit.value("query-blockstats").elements)
    #expect(stats.count == 2 && stats[0]["device"] == "d0" && stats[0]["node-name"] == "#block000")
    #expect(stats[0]["stats"]?["rd_operations"] == 3 && stats[0]["stats"]?["rd_bytes"] == .unsigned(.max))
    #expect(stats[0]["stats"]?["wr_operations"] == 0 && stats[0]["stats"]?["timed_stats"] == [])
  }

  @Test(arguments: [
    ("eject", #"{"id":"cd0"}"#, ["open id(\"cd0\") force=false", "remove id(\"cd0\")"]),
    ("eject", #"{"device":"d0","force":true}"#, ["open device(\"d0\") force=true"]),
    ("blockdev-open-tray", #"{"id":"cd0","force":true}"#, ["open id(\"cd0\") force=true"]),
    ("blockdev-close-tray", #"{"id":"cd0"}"#, ["close id(\"cd0\")"]),
    ("blockdev-remove-medium", #"{"id":"cd0"}"#, ["remove id(\"cd0\")"]),
    ("blockdev-insert-medium", #"{"id":"cd0","node-name":"n1"}"#, ["insert n1 id(\"cd0\")"]),
    (
      "blockdev-change-medium", #"{"id":"cd0","filename":"c.iso","format":"raw","read-only-mode":"retain"}"#,
      ["change id(\"cd0\") file(path: \"c.iso\") force=false"]
    ), ("change", #"{"device":"cd0","target":"c.iso"}"#, ["change device(\"cd0\") file(path: \"c.iso\") force=false"]),
    ("blockdev-del", #"{"node-name":"n1"}"#, ["remove node n1"]),
    ("x-blockdev-set-iothread", #"{"node-name":"n1","iothread":null,"force":true}"#, ["drain n1"]),
    ("block_resize", #"{"device":"d0","size":1048576}"#, ["resize d0 - 1048576"]),
    ("block_resize", #"{"node-name":"n","size":0}"#, ["resize - n 0"]),
    ("blockdev-add", #"{"driver":"raw","node-name":"up","file":"down"}"#, ["add node up over down read-only=false"]),
    ("set-action", #"{"reboot":"shutdown","shutdown":"pause","panic":"none"}"#, ["policies shutdown pause"]),
    ("set-action", #"{"shutdown":"poweroff"}"#, ["policies - end"]), ("set-action", "{}", ["policies - -"]),
    ("device_del", #"{"id":"v0"}"#, ["remove v0"]),
    (
      "device_add", #"{"driver":"virtio-blk-pci","id":"v9","drive":"d9","addr":"0x06.0","num-queues":2,"x":true}"#,
      ["add virtio-blk-pci addr=0x06.0,drive=d9,id=v9,num-queues=2,x=on"]
    ),
  ])
  func theMachineIsAskedAsTheClientSays(command: String, arguments: String, log: [String]) throws {
    let kit = try MonitorKit()
    _ = try kit.execute(command, arguments)
    kit.target.finishWaiting()
    _ = try kit.ask(" ")
    #expect(kit.target.log == log)
  }

  @Test(arguments: [
    ("eject", "{}", "Need exactly one of 'device' and 'id'"),
    ("eject", #"{"device":"a","id":"b"}"#, "Need exactly one of 'device' and 'id'"),
    ("eject", #"{"device":"d0"}"#, "Device 'd0' is not removable"),
    ("x-blockdev-set-iothread", #"{"node-name":"n1"}"#, "Parameter 'iothread' is missing"),
    (
      "x-blockdev-set-iothread", #"{"node-name":"n1","iothread":"t"}"#,
      "Cannot move a node to an iothread: it stays on the loop of the drive that it is in"
    ),
    ("block_resize", #"{"device":"d0","size":-1}"#, "Parameter 'size' expects a >0 size"),
    (
      "block_resize", #"{"device":"d0","size":18446744073709551615}"#,
      "Invalid parameter type for 'size', expected: integer"
    ),
    ("block_resize", #"{"device":5,"size":1}"#, "Invalid parameter type for 'device', expected: string"),
    ("blockdev-insert-medium", #"{"id":"cd0"}"#, "Parameter 'node-name' is missing"),
    (
      "blockdev-change-medium", #"{"id":"cd0","filename":"c","read-only-mode":"read-write"}"#,
      "The medium of a CD-ROM drive is read-only"
    ), ("blockdev-change-medium", #"{"id":"cd0","filename":"c","format":"qcow2"}"#, "Unknown driver 'qcow2'"),
    ("set-action", #"{"reboot":"never"}"#, "Parameter 'reboot' does not accept value 'never'"),
    ("set-action", #"{"watchdog":5}"#, "Invalid parameter type for 'watchdog', expected: string"),
    ("blockdev-add", #"{"node-name":"n2"}"#, "Parameter 'driver' is missing"),
    ("blockdev-add", #"{"node-name":"n2","driver":"zzz"}"#, "Parameter 'driver' does not accept value 'zzz'"),
    ("blockdev-add", #"{"node-name":"n2","driver":"file"}"#, "Parameter 'filename' is missing"),
    ("blockdev-add", #"{"node-name":"n2","driver":"file","filename":"b","zz":1}"#, "Parameter 'zz' is unexpected"),
    ("blockdev-add", #"{"driver":"file","filename":"b"}"#, "'node-name' must be specified for the root node"),
    ("blockdev-add", #"{"node-name":"0x","driver":"file","filename":"b"}"#, "Invalid node-name: '0x'"),
    ("blockdev-add", #"{"node-name":"n","driver":"raw"}"#, "Parameter 'file' is missing"),
    (
      "blockdev-add", #"{"node-name":"n","driver":"raw","file":5}"#,
      "Invalid parameter type for 'file', expected: object"
    ),
    ("device_add", #"{"driver":"zzz"}"#, "'zzz' is not a valid device model name"),
    ("device_add", #"{"driver":"ide-device"}"#, "'ide-device' is not a valid device model name"),
    ("device_add", #"{"id":"v0"}"#, "Parameter 'driver' is missing"),
    ("device_add", #"{"driver":"ide-hd","id":"v0"}"#, "Duplicate device ID 'v0'"),
    ("device_add", #"{"driver":"ide-hd","drive":[]}"#, "Invalid parameter type for 'drive', expected: string"),
    ("object-add", #"{"qom-type":"zz","id":"o"}"#, "Parameter 'qom-type' does not accept value 'zz'"),
    ("object-del", #"{"id":"oo"}"#, "object 'oo' not found"),
    ("qom-get", #"{"path":"cd0","property":"zz"}"#, "Property 'ide-cd.zz' not found"),
    (
      "qom-set", #"{"path":"cd0","property":"drive","value":1}"#,
      "Attempt to set property 'drive' on device 'cd0' (type 'ide-cd') after it was realized"
    ), ("x-spindle-trace", #"{"action":"go"}"#, "Parameter 'action' does not accept value 'go'"),
    (
      "x-spindle-trace", #"{"action":"start","events-per-thread":0}"#,
      "Parameter 'events-per-thread' expects a number from 1 to 67108864"
    ),
  ])
  func aClientsMistakesAreNamed(command: String, arguments: String, text: String) throws {
    let kit = try MonitorKit()
    #expect(try kit.failure(command, arguments) == "GenericError: \(text)")
    #expect(kit.target.log.allSatisfy { $0.hasPrefix("open") })
  }

  @Test(arguments: ["device-list-properties", "qom-get"])
  func whatIsNotThereHasItsOwnClass(command: String) throws {
    let kit = try MonitorKit()
    let arguments = command == "qom-get" ? #"{"path":"zz","property":"type"}"# : #"{"typename":"zz"}"#
    #expect(try kit.failure(command, arguments) == "DeviceNotFound: Device 'zz' not found")
    #expect(try kit.failure("blockdev-open-tray", #"{"id":"zz"}"#) == "DeviceNotFound: Device 'zz' not found")
  }

  /// `block_set_io_throttle` with the six limits that must be there, and others.
  private static func throttle(_ changes: String) -> String {
    var members = ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"].map { (name: $0, value: "0") }
    for change in changes.split(separator: ",") {
      let parts = change.split(separator: ":")
      members.removeAll { $0.name == parts[0] }
      members.append((String(parts[0]), String(parts[1])))
    }
    return "{" + members.map { "\"\($0.name)\": \($0.value)" }.joined(separator: ", ") + "}"
  }

  @Test func limitsAreSetAndShown() throws {
    let kit = try MonitorKit()
    let arguments = Self.throttle(
      #"id:"v0",bps_rd:5,bps_wr:6,bps_wr_max:60,bps_wr_max_length:4,iops:7,iops_max:70,iops_size:4096,group:"d0""#)
    #expect(try kit.execute("block_set_io_throttle", arguments).isEmpty)
    kit.target.finishWaiting()
    #expect(try kit.ask(" ") == [["return": [:]]])
    #expect(kit.target.log == [#"limit id("v0")"#])
    var limits = ThrottleLimits()
    limits.bytes.read = ThrottleLimits.Limit(5)
    limits.bytes.write = ThrottleLimits.Limit(6, burst: 60, burstSeconds: 4)
    limits.requests.total = ThrottleLimits.Limit(7, burst: 70)
    limits.requestBytes = 4096
    #expect(kit.target.limits == limits)
    kit.target.drives[0].limits = limits
    let shown = try #require(try kit.value("query-block").elements?[0]["inserted"])
    for (name, value) in [
      ("bps", 0), ("bps_rd", 5), ("bps_wr", 6), ("bps_wr_max", 60), ("bps_wr_max_length", 4), ("iops", 7),
      ("iops_rd", 0), ("iops_wr", 0), ("iops_max", 70), ("iops_max_length", 1), ("iops_size", 4096),
    ] { #expect(shown[name] == JSONValue(value), "\(name)") }
    #expect(shown["group"] == "d0" && shown["bps_rd_max"] == nil && shown["bps_rd_max_length"] == nil)
  }

  @Test(arguments: [
    ("", "Need exactly one of 'device' and 'id'"),
    (#"id:"v0",bps:-1"#, "bps/iops/max values must be within [0, 1000000000000000]"),
    (#"id:"v0",bps:1000000000000001"#, "bps/iops/max values must be within [0, 1000000000000000]"),
    (
      #"id:"v0",bps:1,bps_rd:1"#,
      "bps/iops/max total values and read/write values cannot be used at the same time"
    ),
    (#"id:"v0",iops:9,iops_max:8"#, "bps_max/iops_max cannot be lower than bps/iops"),
    (#"id:"v0",iops_max:8"#, "bps_max/iops_max require corresponding bps/iops values"),
    (#"id:"v0",bps:9,bps_max_length:2"#, "burst length set without burst rate"),
    (#"id:"v0",bps:9,bps_max:9,bps_max_length:0"#, "the burst length cannot be 0"),
    (#"id:"v0",bps:9,bps_max:1000000000,bps_max_length:1000001"#, "burst length too high for this burst rate"),
    (#"id:"v0",bps:9,iops_size:512"#, "iops size requires an iops value to be set"),
    (#"id:"v0",bps:9,group:"others""#, "Drives share no limits here, so 'group' can only be the drive's own name"),
    (#"id:"v0",bps:1.5"#, "Invalid parameter type for 'bps', expected: integer"),
    (#"id:"v0",bps:9223372036854775808"#, "Invalid parameter type for 'bps', expected: integer"),
    (#"id:"v0",bps_length:1"#, "Parameter 'bps_length' is unexpected"),
  ])
  func limitsThatDoNotGoTogetherAreNamed(changes: String, text: String) throws {
    let kit = try MonitorKit()
    #expect(try kit.failure("block_set_io_throttle", Self.throttle(changes)) == "GenericError: \(text)")
    #expect(kit.target.log.isEmpty)
  }

  @Test func lockedTrayIsNoErrorForWhoAsksTheGuestToOpenIt() throws {
    let kit = try MonitorKit()
    kit.target.drives[1].tray?.isLocked = true
    #expect(try kit.value("blockdev-open-tray", #"{"id":"cd0"}"#) == [:])
    #expect(kit.target.drives[1].tray?.isOpen == false)
    #expect(
      try kit.failure("eject", #"{"id":"cd0"}"#)
        == "GenericError: Device 'cd0' is locked and force was not specified, wait for tray to open and try again")
  }

  @Test func nodesAreMadeOfWhatTheClientWrites() throws {
    let kit = try MonitorKit()
    let raw =
      #"{"node-name":"node0","driver":"raw","read-only":true,"file":{"driver":"file","filename":"b.iso","aio":"native"}}"#
    #expect(try kit.value("blockdev-add", raw) == [:])
    var expected = DriveConfiguration(source: .file(path: "b.iso"), id: "node0")
    expected.isReadOnly = true
    expected.engine = .linuxAIO
    #expect(kit.target.added == expected)
    let null =
      #"{"node-name":"n","driver":"null-co","size":4096,"latency-ns":5,"read-zeroes":true,"cache":{"direct":true}}"#
    #expect(try kit.value("blockdev-add", null) == [:])
    #expect(kit.target.added?.source == .null(byteCount: 4096, latencyNs: 5))
    #expect(kit.target.added?.cache == CacheMode.none)
    kit.target.nodes = [NodeReport(name: "n", filename: "f", byteCount: 512)]
    #expect(try kit.value("query-named-block-nodes").elements?.first?["node-name"] == "n")
  }
}

@Suite struct TypeCommandTests {
  @Test func typesAreListedWithTheirParents() throws {
    let kit = try MonitorKit()
    let all = try #require(
      try kit.value("qom-list-types", #"{"implements":"device","abstract":true}"#).elements)
    #expect(all.contains(["name": "ide-cd", "parent": "ide-device"]))
    #expect(all.contains(["name": "device", "parent": "object", "abstract": true]))
    let concrete = try #require(try kit.value("qom-list-types", #"{"implements":"ide-device"}"#).elements)
    #expect(concrete.compactMap { $0["name"]?.text } == ["ide-hd", "ide-cd"])
    #expect(try kit.value("qom-list-types", #"{"implements":"zz"}"#) == [])
    // Every parent is listed too, down to the root.
    let names = Set(all.compactMap { $0["name"]?.text })
    for type in all { #expect(type["parent"] == "object" || names.contains(type["parent"]?.text ?? "")) }
  }

  @Test func propertiesAreReadByPath() throws {
    let kit = try MonitorKit()
    #expect(try kit.value("qom-get", #"{"path":"/machine","property":"type"}"#) == "pc-q35-7.2-machine")
    #expect(try kit.value("qom-get", #"{"path":"/machine/peripheral/v0","property":"type"}"#) == "virtio-blk-pci")
    #expect(try kit.value("qom-get", #"{"path":"v0","property":"drive"}"#) == "d0")
    #expect(try kit.value("qom-get", #"{"path":"/machine/peripheral","property":"type"}"#) == "container")
    let listed = try #require(try kit.value("device-list-properties", #"{"typename":"ide-cd"}"#).elements)
    #expect(listed.contains(["name": "drive", "type": "str"]))
  }
}

@Suite struct ObjectTreeTests {
  @Test func objectsAreListedFromTheRoot() throws {
    let kit = try MonitorKit()
    #expect(
      try kit.value("qom-list", #"{"path":"/"}"#) == [
        ["name": "type", "type": "string"], ["name": "machine", "type": "child<pc-q35-7.2-machine>"],
      ])
    #expect(
      try kit.value("qom-list", #"{"path":"/machine/peripheral"}"#) == [
        ["name": "type", "type": "string"], ["name": "v0", "type": "child<virtio-blk-pci>"],
        ["name": "cd0", "type": "child<ide-cd>"],
      ])
    let properties = try #require(try kit.value("qom-list", #"{"path":"/machine/peripheral/v0"}"#).elements)
    // What is listed can be read.
    for property in properties {
      let name = try #require(property["name"]?.text)
      _ = try kit.value("qom-get", #"{"path":"v0","property":"\#(name)"}"#)
    }
    #expect(properties.contains(["name": "drive", "type": "str"]))
    #expect(try kit.failure("qom-list", #"{"path":"/nowhere"}"#) == "DeviceNotFound: Device '/nowhere' not found")
  }

  @Test func processorsAreListed() throws {
    let kit = try MonitorKit()
    let processors = try #require(try kit.value("query-cpus-fast").elements)
    #expect(processors.map { $0["cpu-index"] } == [0, 1] && processors[1]["target"] == "x86_64")
    #expect(processors[1]["props"] == ["socket-id": 1, "core-id": 0, "thread-id": 0])
    for name in ["query-jobs", "query-block-jobs", "query-iothreads"] { #expect(try kit.value(name) == []) }
    #expect(try kit.value("query-target") == ["arch": "x86_64"])
  }

  @Test func characterDevicesAreListedWhereTheyAreNamed() throws {
    var settings = MonitorKit.settings
    settings.characterDevices = [
      CharacterDevice(label: "c", filename: "null", isInUse: false),
      CharacterDevice(label: "serial0", filename: "stdio", isInUse: true),
    ]
    let kit = try MonitorKit(settings: settings)
    #expect(
      try kit.value("query-chardev") == [
        ["frontend-open": false, "filename": "null", "label": "c"],
        ["frontend-open": true, "filename": "stdio", "label": "serial0"],
      ])
  }
}

@Suite struct OwnCommandTests {
  @Test func enginesAndWakeupsAreTold() throws {
    let kit = try MonitorKit()
    #expect(try kit.value("x-spindle-engine") == ["notes": ["drive d0: aio=io_uring: it works"]])
    let loop = try #require(try kit.value("x-spindle-wakeups").elements?.first)
    #expect(loop["loop"] == "main" && loop["policy"] == "elided" && loop["eventfd-writes"] != nil)
  }
}
