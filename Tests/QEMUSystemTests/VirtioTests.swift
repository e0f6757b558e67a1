// SPDX-License-Identifier: Apache-2.0
// virtio-blk on PCI: what a driver finds, requests, interrupts.
import Testing

/// A machine with one disk at 00:04.0, as QEMU's test graph makes it.
func diskMachine(_ folder: Folder, board: String = "pc", byteCount: UInt64 = 64 << 20) throws -> Machine {
  let image = try folder.image(byteCount: byteCount)
  return try Machine(
    "-M \(board) -drive if=none,id=drive0,file=\(image),format=raw,auto-read-only=off,cache=writeback "
      + "-drive if=none,id=drive1,file=null-co://,file.read-zeroes=on,format=raw "
      + "-device virtio-blk-pci,id=drv0,drive=drive0,addr=4.0",
    folder: folder)
}

@Suite struct VirtioLayoutTests {
  @Test(arguments: ["pc", "q35"]) func functionIsTransitional(_ board: String) throws {
    let machine = try diskMachine(try Folder(), board: board)
    #expect(try machine.config(.disk, 0) == 0x1001_1af4)
    #expect(try machine.config(.disk, 0x2c) == 0x0002_1af4)
    #expect(try machine.config(.disk, 0x08, .byte) == 0)
    #expect(try machine.config(.disk, 0x10) & 1 == 1, "BAR 0 is of ports")
    #expect(try machine.config(.disk, 0x14) & 15 == 0, "BAR 1 is of memory")
    #expect(try machine.config(.disk, 0x20) & 15 == 12, "BAR 4 is 64-bit and prefetchable")
    try machine.setConfig(.disk, 0x20, 0xffff_ffff)
    #expect(try machine.config(.disk, 0x20) == 0xffff_c00c, "16 KiB")
  }

  @Test func structuresAreInOneBARAndMessagesInAnother() throws {
    let machine = try diskMachine(try Folder())
    let disk = try VirtioDisk(machine)
    let found = disk.structures.filter { (1...4).contains($0.type) }
    #expect(Set(found.map(\.type)) == [1, 2, 3, 4])
    #expect(found.allSatisfy { $0.bar == 4 })
    for (type, offset) in [(1, 0), (3, 0x1000), (4, 0x2000), (2, 0x3000)] as [(UInt32, UInt32)] {
      #expect(found.first { $0.type == type }?.offset == offset)
    }
    #expect(disk.notifyMultiplier == 4)
    let messages = try disk.messageCapability
    #expect(try machine.config(.disk, messages + 2, .word) & 0x7ff >= 1, "two vectors at least")
    #expect(try machine.config(.disk, messages + 4) & 7 == 1)
    #expect(try machine.config(.disk, messages + 8) & 7 == 1)
    for vector in [0, 1] as [UInt64] { #expect(try machine.load(VirtioDisk.table + 16 * vector + 12, .long) & 1 == 1) }
  }

  @Test func featuresAreThoseThatDriversNeed() throws {
    let disk = try VirtioDisk(try diskMachine(try Folder()))
    try disk.setStatus(0)
    let features = try disk.deviceFeatures()
    // SEG_MAX, GEOMETRY, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD, WRITE_ZEROES, INDIRECT_DESC, EVENT_IDX, VERSION_1.
    for bit in [2, 6, 9, 28, 29, 32] as [UInt64] { #expect(features & 1 << bit != 0, "bit \(bit)") }
    #expect(features & (1 << 5 | 1 << 7) == 0, "neither read-only nor SCSI")
  }

  @Test func queueHasTwoHundredFiftySixEntries() throws {
    let disk = try VirtioDisk(try diskMachine(try Folder()))
    #expect(try disk.start().size == 256)
    #expect(try disk.capacity() == 131072)
  }

  /// A write to the legacy registers of a queue that does not exist.
  @Test func legacyAddressOfNoQueueIsSurvived() throws {
    let machine = try diskMachine(try Folder())
    try machine.setConfig(.disk, 0x10, 0xc000)
    try machine.setConfig(.disk, 4, 7, .word)
    try machine.output(0xc000 + 14, 2, .word)
    try machine.output(0xc000 + 8, 1)
    #expect(try machine.ask("endianness") == "OK little")
    let disk = try VirtioDisk(machine)
    #expect(try disk.start().run(0, sector: 0, data: [UInt8](repeating: 1, count: 512)).status == 0)
    #expect(machine.process.end() == 0)
  }

  @Test func modernDiskHasItsOwnIdentity() throws {
    let machine = try Machine(
      "-M q35 -drive if=none,id=drive0,file=null-co://,format=raw "
        + "-device virtio-blk-pci-non-transitional,id=drv0,drive=drive0,addr=4.0")
    #expect(try machine.config(.disk, 0) == 0x1042_1af4)
  }
}

@Suite struct VirtioRequestTests {
  @Test func writtenDataIsReadBack() throws {
    let folder = try Folder()
    let disk = try VirtioDisk(try diskMachine(folder))
    let queue = try disk.start()
    let data = pattern(512)
    #expect(try queue.run(1, sector: 1, data: data).status == 0)
    let read = try queue.run(0, sector: 1, data: [UInt8](repeating: 0, count: 512))
    #expect(read.status == 0 && read.data == data)
    #expect(try fileBytes(folder.file("disk.img"), at: 512, count: 512) == data)
  }

  @Test func indirectTablesMergeHeaderDataAndStatus() throws {
    let disk = try VirtioDisk(try diskMachine(try Folder()))
    let queue = try disk.start()
    let data = pattern(512)
    let write = try queue.makeRequest(1, sector: 0, data: data)
    let head = try queue.add(
      [.init(address: write.address, count: 528), .init(address: write.status, count: 1, isWritten: true)],
      isIndirect: true)
    #expect(try queue.next().head == head)
    #expect(try disk.machine.load(write.status, .byte) == 0)
    let read = try queue.makeRequest(0, sector: 0, data: [UInt8](repeating: 0, count: 512))
    try queue.add(
      [.init(address: read.address, count: 16), .init(address: read.data, count: 513, isWritten: true)],
      isIndirect: true)
    #expect(try queue.next().count == 513)
    #expect(try disk.machine.bytes(read.data, 513) == data + [0])
  }

  @Test func zeroesAreWrittenAndSectorsDiscarded() throws {
    let disk = try VirtioDisk(try diskMachine(try Folder()))
    let queue = try disk.start()
    let features = try disk.driverFeatures()
    try #require(features & 1 << 13 != 0 && features & 1 << 14 != 0)
    let segment = UInt64(0).bytes + UInt32(1).bytes + UInt32(0).bytes
    #expect(try queue.run(1, sector: 0, data: pattern(512)).status == 0)
    #expect(try queue.run(13, sector: 0, data: segment).status == 0)
    #expect(try queue.run(0, sector: 0, data: pattern(512)).data.allSatisfy { $0 == 0 })
    #expect(try queue.run(11, sector: 0, data: segment).status == 0)
  }

  @Test func geometryOfTheUserIsToldAndNoOther() throws {
    let null = "-drive if=none,id=drive0,file=null-co://,format=raw"
    for (options, bit, bytes) in [
      (",cyls=300,heads=200,secs=63", 1, [0x2c, 1, 200, 63]), ("", 0, [0, 0, 0, 0]),
    ] as [(String, UInt64, [UInt8])] {
      let machine = try Machine("-M pc \(null) -device virtio-blk-pci,drive=drive0,addr=4.0\(options)")
      let disk = try VirtioDisk(machine)
      #expect(try disk.deviceFeatures() >> 4 & 1 == bit)
      #expect(try machine.bytes(disk.config + 16, 4) == bytes)
    }
  }

  @Test func requestPastTheEndIsAnErrorOfItsOwn() throws {
    let disk = try VirtioDisk(try diskMachine(try Folder()))
    let queue = try disk.start()
    #expect(try queue.run(0, sector: 131072, data: pattern(512)).status == 1)
    #expect(try queue.run(0, sector: 131071, data: pattern(512)).status == 0)
  }

  @Test func eventIndexSaysWhenToInterrupt() throws {
    let disk = try VirtioDisk(try diskMachine(try Folder()))
    let machine = disk.machine
    let message = machine.allocate(64)
    let queue = try disk.start(without: 0) {
      try disk.enableMessages()
      try machine.store(disk.common + 0x16, 0, .word)
      try machine.store(disk.common + 0x1a, 0, .word)
      try disk.setMessage(0, address: message, data: 0x1234_5678)
    }
    func took() throws -> Bool {
      defer { try? machine.store(message, 0, .long) }
      return try machine.load(message, .long) == 0x1234_5678
    }
    // The first completion crosses index 0.
    #expect(try queue.run(1, sector: 0, data: pattern(512)).status == 0)
    try machine.wait("message") { try took() }
    try queue.setUsedEvent(2)
    #expect(try queue.run(1, sector: 1, data: pattern(512)).status == 0)
    #expect(try !took(), "the second does not cross it")
    #expect(try queue.run(1, sector: 2, data: pattern(512)).status == 0)
    try machine.wait("message") { try took() }
    #expect(try queue.availableEvent == 3)
  }

  @Test func messagesArriveAndAreMasked() throws {
    let disk = try VirtioDisk(try diskMachine(try Folder()))
    let machine = disk.machine
    let configMessage = machine.allocate(64), queueMessage = machine.allocate(64)
    let queue = try disk.start {
      try disk.enableMessages()
      try machine.store(disk.common + 0x10, 0, .word)
      #expect(try machine.load(disk.common + 0x10, .word) == 0)
      try machine.store(disk.common + 0x16, 0, .word)
      try machine.store(disk.common + 0x1a, 1, .word)
      #expect(try machine.load(disk.common + 0x1a, .word) == 1)
      try disk.setMessage(0, address: configMessage, data: 0x1111_1111)
      try disk.setMessage(1, address: queueMessage, data: 0x2222_2222)
    }
    #expect(try queue.run(1, sector: 0, data: pattern(512)).status == 0)
    try machine.wait("the queue's message") { try machine.load(queueMessage, .long) == 0x2222_2222 }
    try machine.monitor.execute("block_resize", ["device": "drive0", "size": 1 << 20])
    try machine.wait("the configuration's message") { try machine.load(configMessage, .long) == 0x1111_1111 }
    #expect(try disk.capacity() == 2048)
    // All masked by the function: the pending bit waits for it.
    try machine.store(queueMessage, 0, .long)
    let control = try disk.messageCapability + 2
    try machine.setConfig(.disk, control, try machine.config(.disk, control, .word) | 0x4000, .word)
    #expect(try queue.run(1, sector: 0, data: pattern(512)).status == 0)
    #expect(try machine.load(queueMessage, .long) == 0)
    let pending = VirtioDisk.table + UInt64(try machine.config(.disk, control + 6) & ~7)
    try machine.wait("the pending bit") { try machine.load(pending, .long) & 2 != 0 }
    // QEMU 7.2's test library writes there.
    try machine.store(pending, 0, .long)
    try machine.setConfig(.disk, control, try machine.config(.disk, control, .word) & ~0x4000, .word)
    #expect(try machine.ask("endianness") == "OK little")
  }
}

@Suite struct VirtioChangeTests {
  @Test func resizeIsToldByTheInterruptStatus() throws {
    let disk = try VirtioDisk(try diskMachine(try Folder()))
    let queue = try disk.start()
    #expect(try queue.run(1, sector: 0, data: pattern(512)).status == 0)
    try disk.machine.wait("bit 0") { try disk.takeInterruptStatus() == 1 }
    #expect(try disk.takeInterruptStatus() == 0)
    try disk.machine.monitor.execute("block_resize", ["device": "drive0", "size": 1 << 20])
    #expect(try disk.takeInterruptStatus() == 3)
    #expect(try disk.capacity() == 2048)
    #expect(try queue.run(0, sector: 2047, data: pattern(512)).status == 0)
    #expect(try queue.run(0, sector: 2048, data: pattern(512)).status == 1)
  }

  @Test(arguments: ["pc", "q35"]) func diskIsPluggedInAndOut(_ board: String) throws {
    let machine = try diskMachine(try Folder(), board: board)
    let place = Machine.Place(device: 6, function: 0)
    #expect(try machine.config(place, 0) == 0xffff_ffff)
    try machine.monitor.execute(
      "device_add", ["driver": "virtio-blk-pci", "id": "drv1", "drive": "drive1", "addr": "0x06.0"])
    #expect(try machine.config(place, 0) == 0x1001_1af4)
    let queue = try VirtioDisk(machine, at: place, slide: 0x40_0000).start()
    #expect(try queue.run(0, sector: 0, data: pattern(512)).data.allSatisfy { $0 == 0 })
    try machine.monitor.execute("device_del", ["id": "drv1"])
    try machine.output(0xae08, 0x40)
    let deleted = try machine.monitor.event("DEVICE_DELETED")
    #expect(deleted["device"] as? String == "drv1")
    #expect(try machine.config(place, 0) == 0xffff_ffff)
    #expect(try machine.monitor.refusal("device_del", ["id": "drv1"]).kind == "DeviceNotFound")
    #expect(machine.process.end() == 0)
  }

  @Test func writeThatFailsWaitsForTheUser() throws {
    let folder = try Folder()
    let rules = try folder.text("blkdebug.conf", ErrorPolicyTests.rules("write_aio"))
    let image = try folder.image()
    let machine = try Machine(
      "-M pc -drive if=none,id=drive0,file=blkdebug:\(rules):\(image),format=raw,rerror=stop,werror=stop "
        + "-device virtio-blk-pci,id=drv0,drive=drive0,addr=4.0", folder: folder)
    let queue = try VirtioDisk(machine).start()
    let request = try queue.makeRequest(1, sector: 5, data: pattern(512))
    machine.monitor.forget()
    let head = try queue.add([
      .init(address: request.address, count: 16), .init(address: request.data, count: 512),
      .init(address: request.status, count: 1, isWritten: true),
    ])
    try machine.monitor.event("STOP")
    #expect(machine.monitor.history == ["BLOCK_IO_ERROR", "STOP"])
    #expect(try queue.deviceUsedIndex == 0)
    try machine.monitor.execute("cont")
    #expect(try queue.next().head == head)
    #expect(try machine.load(request.status, .byte) == 0)
    #expect(try fileBytes(image, at: 5 * 512, count: 512) == pattern(512))
  }
}
