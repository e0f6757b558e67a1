// SPDX-License-Identifier: Apache-2.0
//
// GuestDrivers holds code that runs on the guest's side of the machine: PCI enumeration, drivers, test programs and
// load generators, each generic over `Bus`. The same sources are built three times: as an ordinary module for the
// hosted processor, as Embedded Swift for x86_64-unknown-none-elf into Images/testguest, and as the driver of
// conformance tests. Therefore: no imports, no floating point, no Dictionary, no String building, integers only; every
// loop has a bound whatever the device does; and nothing per request allocates, retains or calls through an
// existential. Nothing here may know about the emulator, its devices' classes, or the host.

/// What a guest program needs of the machine that carries it.
///
/// A driver is written once against this protocol and specialised for each carrier: real instructions in a booted
/// image, a virtual processor hosted in the emulator's own process, or (later) a qtest socket. All addresses are
/// guest-physical. Nothing here may use floating point: the bare-metal carrier has none.
///
/// Functions are non-mutating so that a bus can be a thin value or a final class; a bus belongs to the processor that
/// runs the program, except where a function says otherwise.
public protocol Bus: SendableMetatype {
  // MARK: Ports

  /// Reads one byte from an I/O port.
  func in8(_ port: UInt16) -> UInt8
  /// Reads two bytes from an I/O port.
  func in16(_ port: UInt16) -> UInt16
  /// Reads four bytes from an I/O port.
  func in32(_ port: UInt16) -> UInt32
  /// Writes one byte to an I/O port.
  func out8(_ port: UInt16, _ value: UInt8)
  /// Writes two bytes to an I/O port.
  func out16(_ port: UInt16, _ value: UInt16)
  /// Writes four bytes to an I/O port.
  func out32(_ port: UInt16, _ value: UInt32)

  // MARK: Device memory (BARs, ECAM): each call is exactly one access of its width

  /// Reads one byte of device memory.
  func mmioRead8(_ address: UInt64) -> UInt8
  /// Reads two bytes of device memory.
  func mmioRead16(_ address: UInt64) -> UInt16
  /// Reads four bytes of device memory.
  func mmioRead32(_ address: UInt64) -> UInt32
  /// Reads eight bytes of device memory.
  func mmioRead64(_ address: UInt64) -> UInt64
  /// Writes one byte of device memory.
  func mmioWrite8(_ address: UInt64, _ value: UInt8)
  /// Writes two bytes of device memory.
  func mmioWrite16(_ address: UInt64, _ value: UInt16)
  /// Writes four bytes of device memory.
  func mmioWrite32(_ address: UInt64, _ value: UInt32)
  /// Writes eight bytes of device memory.
  func mmioWrite64(_ address: UInt64, _ value: UInt64)

  // MARK: Guest RAM, shared with devices: each call is one naturally aligned access

  /// Reads one byte of RAM.
  func ramRead8(_ address: UInt64) -> UInt8
  /// Reads two bytes of RAM.
  func ramRead16(_ address: UInt64) -> UInt16
  /// Reads four bytes of RAM.
  func ramRead32(_ address: UInt64) -> UInt32
  /// Reads eight bytes of RAM.
  func ramRead64(_ address: UInt64) -> UInt64
  /// Writes one byte of RAM.
  func ramWrite8(_ address: UInt64, _ value: UInt8)
  /// Writes two bytes of RAM.
  func ramWrite16(_ address: UInt64, _ value: UInt16)
  /// Writes four bytes of RAM.
  func ramWrite32(_ address: UInt64, _ value: UInt32)
  /// Writes eight bytes of RAM.
  func ramWrite64(_ address: UInt64, _ value: UInt64)

  /// Full barrier: every RAM access before it is visible to devices before any access after it.
  func fullBarrier()
  /// Store barrier: RAM writes before it are visible to devices before RAM writes after it (virtio 1.3 §2.7.13).
  func storeBarrier()
  /// Load barrier: RAM reads after it are not satisfied before RAM reads before it.
  func loadBarrier()

  /// Takes zeroed RAM for DMA, never given back. `alignment` is a power of two.
  /// - Returns: the guest-physical address, or nil where there is no more.
  func allocate(byteCount: UInt64, alignment: UInt64) -> UInt64?

  // MARK: Interrupts

  /// Takes an interrupt vector that arrives at the given processor (0 is the boot processor) by message.
  func allocateInterrupt(processor: Int) -> MessageInterrupt?
  /// How often the interrupt has arrived so far, wrapping. Any processor may ask.
  func interruptCount(_ interrupt: MessageInterrupt) -> UInt32
  /// Halts the calling processor until the interrupt's count differs from `seen`; returns at once where it does.
  ///
  /// It may also return early; callers check and wait again, and give up by `ticks`, so a carrier that wants a silent
  /// device to become a failed test instead of a hang returns early every second or so. Called on the processor that
  /// the interrupt arrives at.
  /// - Returns: false where the machine is going away and the program must unwind.
  func waitForInterrupt(_ interrupt: MessageInterrupt, after seen: UInt32) -> Bool
  /// Called in every polling loop: a pause instruction, or a yield in a hosted processor.
  /// - Returns: false where the machine is going away and the program must unwind.
  func relax() -> Bool

  // MARK: Processors

  /// How many processors the machine has, the boot processor included.
  var processorCount: Int { get }
  /// Starts an application processor, once, at `program`; it parks when `program` returns.
  ///
  /// `program` gets that processor's own bus, since a bus belongs to one processor.
  /// - Returns: false where that processor did not come up.
  func startProcessor(_ index: Int, _ program: @escaping @Sendable (Self) -> Void) -> Bool

  /// A free-running counter (the time-stamp counter) for durations in reports and to give up on a silent device.
  ///
  /// It runs at 0.1 to 10 GHz; nearer than that its unit is the carrier's affair.
  var ticks: UInt64 { get }
}

/// An interrupt that a device raises by writing a message (MSI, MSI-X).
public struct MessageInterrupt: Sendable {
  /// The carrier's own number of it (on x86 the vector).
  public var number: UInt32
  /// Where the device writes, low and high half together.
  public var address: UInt64
  /// What the device writes.
  public var data: UInt32

  /// Names the interrupt `number`, raised by writing `data` at `address`.
  public init(number: UInt32, address: UInt64, data: UInt32) {
    self.number = number
    self.address = address
    self.data = data
  }
}
