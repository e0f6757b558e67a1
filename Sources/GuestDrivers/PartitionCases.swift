// SPDX-License-Identifier: Apache-2.0

/// Cases about what is on a disk of any kind: GPT, ext4.
extension TestRun {
  /// The partition table with its checksums and the file system of partition 1.
  func partitionCases<Disk: DiskUnderTest>(_ disk: Disk) where Disk.Queue.B == B {
    guard options.looksForPartitions else {
      report.skip("gpt: header and array have the right CRCs", "disk=plain")
      return
    }
    guard disk.byteCount >= GUIDPartitionTable.byteCount else {
      report.skip("gpt: header and array have the right CRCs", "the disk is smaller than a table")
      return
    }
    var table = GUIDPartitionTable()
    var isAbsent = false
    var problem: GPTProblem?
    do {
      let isRead = try disk.queue.readAndWait(
        sector: 0, into: scratchpad, byteCount: UInt32(GUIDPartitionTable.byteCount))
      problem = isRead ? table.parse(bus, address: scratchpad, crc: crc) : .headerFields
      isAbsent = problem == GPTProblem.none
    } catch {
      report.fail("gpt: header and array have the right CRCs", error)
      isStopping = true
      return
    }
    if isAbsent {
      report.skip("gpt: header and array have the right CRCs", "no signature")
      return
    }
    guard report.check(problem == nil, "gpt: header and array have the right CRCs") else {
      return
    }
    disk.table = table
    for partition in table.partitions {
      report.comment { console in
        console.text("gpt: partition ")
        console.decimal(UInt64(partition.number))
        console.text(" blocks ")
        console.decimal(partition.firstBlock)
        console.text(" to ")
        console.decimal(partition.lastBlock)
        console.text(partition.isScratch ? " scratch" : "")
      }
    }
    attempt("gpt: the backup header is at the end and has the right CRC") { () throws(DriverError) in
      let block = table.backupBlock
      guard block == disk.sectorCount &- 1 else {
        return false
      }
      let isRead = try disk.queue.readAndWait(sector: block, into: scratchpad, byteCount: 512)
      return isRead && table.checkHeader(bus, scratchpad, block: block, crc: crc) == nil
    }
    superblockCase(disk, table)
  }

  private func superblockCase<Disk: DiskUnderTest>(
    _ disk: Disk, _ table: GUIDPartitionTable
  ) where Disk.Queue.B == B {
    let name: StaticString = "ext4: partition 1 has a superblock that fits into it"
    guard let partition = table.partition(1), partition.blockCount >= 4 else {
      report.skip(name, "no partition 1")
      return
    }
    let sector = partition.firstBlock + Ext4Superblock.byteOffset / 512
    attempt(name) { () throws(DriverError) in
      let isRead = try disk.queue.readAndWait(
        sector: sector, into: scratchpad, byteCount: UInt32(Ext4Superblock.byteCount))
      guard isRead, let superblock = Ext4Superblock(bus, address: scratchpad) else {
        return false
      }
      report.result { console in
        console.text("ext4 disk=")
        console.decimal(UInt64(disk.number))
        console.text(" uuid=")
        console.hexadecimal(superblock.uuid.high, digits: 16)
        console.hexadecimal(superblock.uuid.low, digits: 16)
        console.text(" blocks=")
        console.decimal(superblock.blockCount)
        console.text(" free=")
        console.decimal(superblock.freeBlockCount)
        console.text(" block-bytes=")
        console.decimal(superblock.blockBytes)
        console.text(" inodes=")
        console.decimal(UInt64(superblock.inodeCount))
        console.text(" label=")
        console.text(at: superblock.labelAddress, byteCount: 16)
      }
      let (bytes, overflow) = superblock.blockCount.multipliedReportingOverflow(by: superblock.blockBytes)
      return !overflow && superblock.blockCount > 0 && bytes <= partition.blockCount * 512
    }
  }
}
