// SPDX-License-Identifier: Apache-2.0
// A port that is nothing but a device's link, for tests of devices alone: commands go straight in, data are arrays.
import Block
import EventLoop
import Glibc

@testable import AHCI

/// Runs one command at a time on a device, and keeps what came of it.
final class FakeLink: SATALink {
  let device: SATADevice
  let loop: EventLoop
  let slot: UnsafeMutablePointer<CommandSlot>
  private let request = UnsafeMutablePointer<BlockRequest>.allocate(capacity: 1)
  private let iovecs = UnsafeMutablePointer<iovec>.allocate(capacity: 4)
  private var transferBuffer: UnsafeMutableRawBufferPointer?
  private var isRead = false
  /// Bytes that the guest's list has room for.
  var listBytes = 1 << 20
  /// What the guest's memory holds for the device to take.
  var guestData: [UInt8] = []
  /// What the device has given the guest.
  private(set) var received: [UInt8] = []
  private(set) var isFinished = false
  private(set) var failedInQueue = 0

  init(device: SATADevice, loop: EventLoop) {
    self.device = device
    self.loop = loop
    slot = .allocate(capacity: 1)
    slot.initialize(to: CommandSlot(number: 0, request: request, iovecs: iovecs))
    request.initialize(to: BlockRequest())
    super.init()
    request.pointee.client = Unmanaged.passUnretained(self)
    device.linkReference = Unmanaged.passUnretained(self)
    device.hardReset()
  }

  deinit {
    slot.deallocate()
    request.deallocate()
    iovecs.deallocate()
  }

  /// Runs a command to its end, on the loop, and returns the registers that it leaves.
  @discardableResult
  func run(
    _ command: UInt8, features: UInt16 = 0, lba: UInt64 = 0, count: UInt16 = 0, deviceRegister: UInt8 = 0x40,
    packet: [UInt8] = []
  ) -> TaskFile {
    slot.initialize(to: CommandSlot(number: 0, request: request, iovecs: iovecs))
    slot.pointee.fis.type = FISType.registerH2D
    slot.pointee.fis.isCommand = true
    slot.pointee.fis.command = command
    slot.pointee.fis.features = features
    slot.pointee.fis.lba = lba
    slot.pointee.fis.count = count
    slot.pointee.fis.device = deviceRegister
    slot.pointee.hasPacket = !packet.isEmpty
    if !packet.isEmpty {
      let padded = packet + [UInt8](repeating: 0, count: 16 - packet.count)
      slot.pointee.packet = padded.withUnsafeBytes {
        ($0.loadUnaligned(as: UInt64.self), $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
      }
    }
    slot.pointee.answer = TaskFile(device: deviceRegister, lba: lba, count: count)
    received = []
    isFinished = false
    device.execute(slot)
    var rounds = 0
    while !isFinished && rounds < 10_000 {
      loop.runOnce(mayBlock: false)
      rounds += 1
    }
    precondition(isFinished, "the command never ended")
    return slot.pointee.answer
  }

  override func finish(_ slot: UnsafeMutablePointer<CommandSlot>) {
    precondition(!isFinished, "a command ends once")
    isFinished = true
  }

  override func transfer(
    _ operation: BlockOperation, of backend: BlockBackend, offset: UInt64, byteCount: UInt64, durable: Bool,
    for slot: UnsafeMutablePointer<CommandSlot>
  ) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(byteCount), alignment: 4096)
    transferBuffer = buffer
    isRead = operation == .read
    if !isRead { buffer.copyBytes(from: guestData.prefix(Int(byteCount))) }
    iovecs[0] = iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)
    request.pointee.operation = operation
    request.pointee.offset = offset
    request.pointee.byteCount = byteCount
    request.pointee.forceUnitAccess = durable
    request.pointee.iovecs = iovecs
    request.pointee.iovecCount = 1
    backend.submit(request)
  }

  override func submit(to backend: BlockBackend, for slot: UnsafeMutablePointer<CommandSlot>) {
    backend.submit(request)
  }

  override func completed(_ request: UnsafeMutablePointer<BlockRequest>) {
    if let buffer = transferBuffer {
      transferBuffer = nil
      if request.pointee.result == 0 {
        slot.pointee.movedBytes += UInt64(buffer.count)
        if isRead { received += buffer }
      }
      buffer.deallocate()
    }
    device.transferEnded(slot, result: request.pointee.result)
  }

  override func send(_ bytes: UnsafeRawBufferPointer, for slot: UnsafeMutablePointer<CommandSlot>) -> Int {
    let taken = min(bytes.count, listBytes - received.count)
    received += bytes.prefix(taken)
    slot.pointee.movedBytes += UInt64(taken)
    if taken < bytes.count { slot.pointee.overflowed = true }
    return taken
  }

  override func receive(
    into bytes: UnsafeMutableRawBufferPointer, for slot: UnsafeMutablePointer<CommandSlot>
  ) -> Int {
    let taken = min(bytes.count, guestData.count)
    bytes.copyBytes(from: guestData.prefix(taken))
    guestData.removeFirst(taken)
    slot.pointee.movedBytes += UInt64(taken)
    if taken < bytes.count { slot.pointee.overflowed = true }
    return taken
  }
}
