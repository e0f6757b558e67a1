// SPDX-License-Identifier: Apache-2.0
import Block
import Glibc

/// One of a port's 32 command slots: what the guest asked for, how far it has come, and the request that serves it.
///
/// All of a port's slots are allocated with it. A slot is the device's from `SATADevice.execute` to `SATALink.finish`.
struct CommandSlot {
  /// 0 to 31; of a queued command also its tag.
  let number: Int
  /// What the block layer serves for this command, with room for `iovecsMax` entries in `iovecs`. Its `slot` and
  /// `client` are set.
  let request: UnsafeMutablePointer<BlockRequest>
  /// The room for scatter lists, this slot's own.
  let iovecs: UnsafeMutablePointer<iovec>

  // MARK: What the guest asked for

  /// The register FIS.
  var fis = CommandFIS()
  /// The ATAPI command, 16 bytes; zeroes where the header has no A bit.
  var packet: (UInt64, UInt64) = (0, 0)
  /// The header's A bit: there is an ATAPI command.
  var hasPacket = false
  /// The physical region descriptors.
  var list = ScatterList()

  // MARK: What comes of it

  /// The registers that the guest gets. Set to success with the FIS's own address, count and device before `execute`.
  var answer = TaskFile()
  /// The PIO set-up FIS that goes before them.
  var pio = PIOSetup()
  /// Bytes moved between the guest and the device so far; PRDBC at the end.
  var movedBytes: UInt64 = 0
  /// The list ended before the data did (PxIS.OFS).
  var overflowed = false
  /// A descriptor pointed outside RAM (PxIS.HBFS).
  var faulted = false

  // MARK: The transfer under way (SATALink.transfer)

  /// The next byte on the disk, and how many are left from there on.
  var transferOffset: UInt64 = 0, transferLeft: UInt64 = 0
  /// Host memory in between, where the list cannot be handed to the disk as it is; nil else.
  var bounce: UnsafeMutableRawPointer?
  /// Where the pieces go. Not retained: a device's disk outlives its requests.
  var pieceBackend: Unmanaged<BlockBackend>?
  /// The request moves data of the guest, rather than the device's own.
  var isMoving = false

  // MARK: For the port

  /// The command is the device's.
  var isExecuting = false
  /// The request is the block layer's.
  var isLent = false
  /// The guest has given the command up (a reset): whatever still comes back is dropped.
  var isAbandoned = false
  /// A queued command (READ or WRITE FPDMA QUEUED).
  var isQueued = false

  // MARK: For the device

  /// What the device likes to remember between its steps.
  var phase: Int = 0
  var deviceOffset: UInt64 = 0, deviceLeft: UInt64 = 0
  /// Host memory of the device's own for this command; the device frees it before `finish`, the port where the command
  /// is abandoned. Made by malloc.
  var deviceBuffer: UnsafeMutableRawPointer?

  init(number: Int, request: UnsafeMutablePointer<BlockRequest>, iovecs: UnsafeMutablePointer<iovec>) {
    self.number = number
    self.request = request
    self.iovecs = iovecs
  }
}

extension CommandSlot {
  /// Makes the answer a failure.
  mutating func fail(_ error: UInt8) {
    answer.status = ATAStatus.good | ATAStatus.error
    answer.error = error
  }

  /// Frees host memory that the command holds.
  mutating func freeBuffers() {
    free(bounce)
    bounce = nil
    free(deviceBuffer)
    deviceBuffer = nil
  }
}
