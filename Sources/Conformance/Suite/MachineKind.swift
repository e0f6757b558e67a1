// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

/// What a case's machine has besides the PC itself, which always (but for `virtioMMIO`) has an AHCI controller at 00:1f.2.
public enum MachineKind: String, CaseIterable, Sendable {
  /// No disk at all.
  case bare
  /// A virtio disk.
  case virtio
  /// A virtio disk with a serial number.
  case virtioSerial
  /// A virtio disk that refuses writes.
  case virtioReadOnly
  /// A virtio disk with two request queues.
  case virtioTwoQueues
  /// A virtio disk whose requests are served by an I/O thread.
  case virtioThread
  /// A virtio disk whose first write and first flush fail with EIO, reported to the guest.
  case virtioFaults
  /// A virtio disk whose first write fails with EIO and stops the machine until it is continued.
  case virtioStop
  /// A virtio disk with two request queues and an I/O thread, whose first write fails with EIO and stops the machine
  /// until it is continued.
  case virtioTwoQueuesStop
  /// A virtio disk that writes 6 KiB a second.
  case virtioSlow
  /// A virtio disk that is resized through the monitor.
  case virtioResizable
  /// A virtio disk on the board, by the memory-mapped transport; it may be resized through the monitor. QEMU has such
  /// places on its board `microvm` only, without PCI.
  case virtioMMIO
  /// A SATA disk on port 0.
  case ahci
  /// SATA disks on ports 0 and 3.
  case ahciTwoDisks
  /// A SATA disk on port 0 whose first write and first flush fail with EIO, reported to the guest.
  case ahciFaults
  /// A SATA disk on port 0 whose first write fails with EIO and stops the machine until it is continued.
  case ahciStop
  /// A SATA disk on port 0 that writes 6 KiB a second.
  case ahciSlow
  /// A CD-ROM drive with a disc on port 0.
  case cd
  /// A CD-ROM drive without a disc on port 0.
  case cdEmpty

  /// RAM of every machine.
  public static let memoryBytes: UInt64 = 128 << 20
  /// Bytes of every disk.
  public static let diskBytes: UInt64 = 64 << 20
  /// The first so many sectors of every disk hold `patternWord`; the rest is zeroes.
  public static let patternSectors: UInt64 = 2048
  /// Bytes of the disc: a whole number of blocks of 2048, all with `patternWord`.
  public static let discBytes: UInt64 = 1 << 20
  /// The serial number of the disks that have one.
  public static let serial = "SPN0123456789"
  /// Bytes a second of the slow disks.
  static let slowBytesPerSecond = 6144

  /// The 64-bit word at byte `offset` (a multiple of 8) of the part of a disk or disc with a pattern.
  public static func patternWord(at offset: UInt64) -> UInt64 {
    (offset &+ 0x5EED) &* 0x9E37_79B9_7F4A_7C15
  }

  /// The bytes of a part of the pattern; both ends are multiples of 8.
  public static func pattern(_ range: Range<UInt64>) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(range.count)
    for offset in stride(from: range.lowerBound, to: range.upperBound, by: 8) {
      withUnsafeBytes(of: patternWord(at: offset).littleEndian) { bytes.append(contentsOf: $0) }
    }
    return bytes
  }

  /// Whether cases of it talk to the monitor.
  var needsMonitor: Bool {
    [.virtioStop, .virtioTwoQueuesStop, .ahciStop, .virtioResizable, .virtioMMIO].contains(self)
  }

  /// Writes the images of such a machine into a folder that exists, for a machine that somebody else starts.
  /// - Returns: the option words of the machine.
  public func prepare(inFolder path: String) throws(TransportError) -> [String] {
    try prepare(.other) { "\(path)/\($0)" }
  }

  /// Writes the image files into `folder`.
  /// - Returns: the option words of the machine.
  func prepare(
    in folder: TemporaryFolder, for target: TargetKind = .other
  ) throws(TransportError) -> [String] { try prepare(target, place: folder.file) }

  private func prepare(_ target: TargetKind, place: (String) -> String) throws(TransportError) -> [String] {
    var machine = ["-M", "q35", "-m", "\(Self.memoryBytes >> 20)"]
    if self == .virtioMMIO {
      if target == .qemu { machine[1] = "microvm" }
      // Without this the places have the registers of before version 1.
      machine += ["-global", "virtio-mmio.force-legacy=false"]
    }
    var drives: [(keys: String, device: String)] = []
    let virtio = "virtio-blk-pci,drive=drive0,addr=4.0"
    switch self {
    case .bare: break
    case .virtio, .virtioResizable: drives = [("", virtio)]
    case .virtioMMIO: drives = [("", "virtio-blk-device,drive=drive0")]
    case .virtioSerial: drives = [("", "\(virtio),serial=\(Self.serial)")]
    case .virtioReadOnly: drives = [(",readonly=on", virtio)]
    case .virtioTwoQueues: drives = [("", "\(virtio),num-queues=2")]
    case .virtioThread:
      machine += ["-object", "iothread,id=io0"]
      drives = [("", "\(virtio),iothread=io0")]
    case .virtioFaults: drives = [(",werror=report,rerror=report", virtio)]
    case .virtioStop: drives = [(",werror=stop,rerror=stop", virtio)]
    case .virtioTwoQueuesStop:
      machine += ["-object", "iothread,id=io0"]
      drives = [(",werror=stop,rerror=stop", "\(virtio),num-queues=2,iothread=io0")]
    case .virtioSlow: drives = [(",throttling.bps-write=\(Self.slowBytesPerSecond)", virtio)]
    case .ahci: drives = [("", "ide-hd,drive=drive0,bus=ide.0")]
    case .ahciTwoDisks: drives = [("", "ide-hd,drive=drive0,bus=ide.0"), ("", "ide-hd,drive=drive1,bus=ide.3")]
    case .ahciFaults: drives = [(",werror=report,rerror=report", "ide-hd,drive=drive0,bus=ide.0")]
    case .ahciStop: drives = [(",werror=stop,rerror=stop", "ide-hd,drive=drive0,bus=ide.0")]
    case .ahciSlow:
      drives = [(",throttling.bps-write=\(Self.slowBytesPerSecond)", "ide-hd,drive=drive0,bus=ide.0")]
    case .cd: drives = [(",readonly=on", "ide-cd,drive=drive0,bus=ide.0")]
    case .cdEmpty: return machine + ["-device", "ide-cd,id=cd0,bus=ide.0"]
    }
    var words = machine
    for (index, drive) in drives.enumerated() {
      let path = place("disk\(index)")
      if self == .cd {
        try Self.writeImage(path, patternBytes: Self.discBytes, byteCount: Self.discBytes)
      } else {
        try Self.writeImage(path, patternBytes: Self.patternSectors << 9, byteCount: Self.diskBytes)
      }
      let file = try faults(place).map { "blkdebug:\($0):\(path)" } ?? path
      words += ["-drive", "file=\(file),format=raw,if=none,id=drive\(index)\(drive.keys)", "-device", drive.device]
    }
    return words
  }

  /// Writes the fault rules; nil where there are none.
  private func faults(_ place: (String) -> String) throws(TransportError) -> String? {
    let events: [String]
    switch self {
    case .virtioFaults, .ahciFaults: events = ["write_aio", "flush_to_disk"]
    case .virtioStop, .virtioTwoQueuesStop, .ahciStop: events = ["write_aio"]
    default: return nil
    }
    let path = place("faults")
    // Of each event the first one fails: the rules are good for once.
    let rules = events.map {
      "[inject-error]\nevent = \"\($0)\"\nerrno = \"5\"\nimmediately = \"off\"\nonce = \"on\"\n"
    }
    try Self.write(path, Array(rules.joined(separator: "\n").utf8))
    return path
  }

  private static func writeImage(_ path: String, patternBytes: UInt64, byteCount: UInt64) throws(TransportError) {
    try write(path, pattern(0..<patternBytes))
    guard truncate(path, Int(byteCount)) == 0 else {
      throw TransportError(.system, "truncate \(path): \(SystemError.text(of: errno))")
    }
  }

  private static func write(_ path: String, _ bytes: [UInt8]) throws(TransportError) {
    do {
      try writeWholeFile(path, bytes)
    } catch {
      throw TransportError(.system, "\(path): \(error)")
    }
  }
}
