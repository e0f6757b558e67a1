// SPDX-License-Identifier: Apache-2.0
import Block
import EventLoop
import Tracing

/// From PxCI to the device: fetching command headers, tables and FISes (AHCI 1.3.1 §5.3, §5.5.1).
extension AHCIPort {
  /// PxCI: the guest issues commands; bits that are set already, and all while ST is 0, change nothing (§3.3.14).
  func writeCommandIssue(_ bits: UInt32) {
    guard command & PortCommand.start != 0 else { return }
    Tracing.record(.doorbell, value: bits)
    commandIssue |= bits
    takeCommands()
  }

  /// Whether the port may fetch a command now. While a command that is not queued is under way (PxTFD.STS.BSY), after
  /// an error, and before the device has sent its signature, issued commands wait.
  private var mayTake: Bool {
    commandIssue != 0 && current == nil && !isHalted && list != nil && command & PortCommand.start != 0
      && received != nil && !signaturePending && sataStatus == PortSATA.linkUp && deviceReference != nil
      && afterDrain.isEmpty && !controller.isPaused && controller.isBusMaster
  }

  /// Fetches issued commands, in turn, as one batch, until none may be taken.
  func takeCommands() {
    if isTaking || !mayTake { return }
    isTaking = true
    loop.beginBatch()
    while mayTake, take(nextSlot) {}
    loop.endBatch()
    isTaking = false
  }

  /// The issued slot that follows the last one (§5.3.2.8, round robin).
  private var nextSlot: Int {
    let start = (lastSlot + 1) & (Limit.slots - 1)
    let turned = commandIssue >> UInt32(start) | commandIssue << UInt32((Limit.slots - start) & (Limit.slots - 1))
    return (start + turned.trailingZeroBitCount) & (Limit.slots - 1)
  }

  /// Fetches the command in a slot and gives it to the device.
  /// - Returns: false where it has to wait.
  private func take(_ index: Int) -> Bool {
    guard let list else { return false }
    let bit = UInt32(1) << UInt32(index)
    let header = list + index * PortLayout.headerBytes
    let flags = header.loadUnaligned(as: UInt32.self)
    let tableAddress = header.loadUnaligned(fromByteOffset: 8, as: UInt64.self) & ~0x7f
    let regionCount = UInt16(truncatingIfNeeded: flags >> 16)
    let tableBytes = PortLayout.regionsOffset + UInt64(regionCount) * UInt64(ScatterList.entryBytes)
    guard let table = memory.pointer(at: tableAddress, byteCount: tableBytes) else {
      lastSlot = index
      report("slot \(index): the command table at \(hexadecimal(tableAddress)) is not in guest memory")
      halt(PortInterrupt.hostBusFatal)
      return false
    }
    let fis = CommandFIS(at: table)
    let words = flags & 0x1f
    guard words >= PortLayout.registerFISWords, words <= PortLayout.fisWordsMax, fis.type == FISType.registerH2D,
      fis.multiplierPort == 0
    else {
      lastSlot = index
      refuseFIS(index, fis, words: words)
      return false
    }
    guard fis.isCommand else {
      lastSlot = index
      commandIssue &= ~bit
      writeDeviceControl(fis.control)
      return true
    }
    // Only the end of the reset is awaited then.
    if isInSoftReset { return false }
    lastSlot = index
    let isQueued = isQueuedCommand(fis)
    guard queueAllows(index, fis, isQueued: isQueued) else { return false }
    fill(slots + index, fis, table: table, regionCount: regionCount, hasPacket: flags & 0x20 != 0, isQueued: isQueued)
    if isQueued {
      accept(index)
    } else {
      current = index
      taskFileStatus = ATAStatus.busy
    }
    deviceReference.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.execute(slots + index) }
    return true
  }

  /// A FIS that no device behind this port takes: the link's protocol is broken off (§6.1.2, §6.2.2.1), and the list
  /// stands until the guest has cleared PxCMD.ST.
  @inline(never)
  private func refuseFIS(_ index: Int, _ fis: CommandFIS, words: UInt32) {
    report(
      "slot \(index): no device takes a FIS of type \(hexadecimal(fis.type)), \(words) words, "
        + "for multiplier port \(fis.multiplierPort)")
    sataError |= PortError.protocol
    halt(PortInterrupt.interfaceFatal)
  }

  @inline(__always)
  private func isQueuedCommand(_ fis: CommandFIS) -> Bool {
    (fis.command == QueuedCommand.read || fis.command == QueuedCommand.write)
      && deviceReference.unsafelyUnwrapped._withUnsafeGuaranteedRef { $0.takesQueued }
  }

  /// Checks the rules of queueing (SATA 3.3 §13.6.3; ACS-3, NCQ feature set): a tag is its slot's number and not in use, and nothing
  /// but queued commands comes while some are under way. A breach fails all that is queued.
  @inline(__always)
  private func queueAllows(_ index: Int, _ fis: CommandFIS, isQueued: Bool) -> Bool {
    let bit = UInt32(1) << UInt32(index)
    if isQueued {
      if Int(fis.count >> 3) & 0x1f == index && (queued | finished) & bit == 0 { return true }
    } else if queued | finished == 0 {
      return true
    }
    return refuseInQueue(index, fis, isQueued: isQueued)
  }

  @inline(never)
  private func refuseInQueue(_ index: Int, _ fis: CommandFIS, isQueued: Bool) -> Bool {
    if finished != 0 { publishFinished() }
    if !isQueued && queued == 0 { return true }
    report(
      isQueued
        ? "slot \(index): tag \(fis.count >> 3 & 0x1f) is in use or not the slot's"
        : "slot \(index): command \(hexadecimal(fis.command)) while queued commands are under way")
    abandonCommands()
    let slot = slots + index
    slot.pointee.fis = fis
    slot.pointee.isQueued = isQueued
    slot.pointee.answer = TaskFile(device: fis.device, lba: fis.lba, count: fis.count)
    slot.pointee.fail(ATAError.abort)
    device?.queueFailed(slot)
    isHalted = true
    receiveRegisters(slot.pointee.answer, interrupts: false)
    raise(PortInterrupt.registerFIS | PortInterrupt.taskFileError)
    return false
  }

  @inline(__always)
  private func fill(
    _ slot: UnsafeMutablePointer<CommandSlot>, _ fis: CommandFIS, table: UnsafeMutableRawPointer, regionCount: UInt16,
    hasPacket: Bool, isQueued: Bool
  ) {
    slot.pointee.fis = fis
    slot.pointee.hasPacket = hasPacket
    if hasPacket {
      slot.pointee.packet = (
        table.loadUnaligned(fromByteOffset: PortLayout.packetOffset, as: UInt64.self),
        table.loadUnaligned(fromByteOffset: PortLayout.packetOffset + 8, as: UInt64.self)
      )
    }
    slot.pointee.list = ScatterList(table: table + Int(PortLayout.regionsOffset), count: regionCount)
    slot.pointee.answer = TaskFile(device: fis.device, lba: fis.lba, count: fis.count)
    slot.pointee.pio = PIOSetup()
    slot.pointee.movedBytes = 0
    slot.pointee.overflowed = false
    slot.pointee.faulted = false
    slot.pointee.isQueued = isQueued
    slot.pointee.isExecuting = true
  }

  /// The device takes a queued command: it sends its registers without BSY and without an interrupt, which clears the
  /// slot's bit in PxCI (§5.3.8; PxSACT keeps it).
  @inline(__always)
  private func accept(_ index: Int) {
    let bit = UInt32(1) << UInt32(index)
    queued |= bit
    commandIssue &= ~bit
    receiveRegisters(slots[index].answer, interrupts: false)
  }

  /// Stops the command list with an error of the port's own; the command's bit stays in PxCI.
  func halt(_ interrupt: UInt32) {
    isHalted = true
    raise(interrupt)
  }
}
