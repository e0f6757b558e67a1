// SPDX-License-Identifier: Apache-2.0
import Assembly
import Machine
import Platform

/// The file in which a firmware finds the geometries that a user gave to disks (`lcyls`, `lheads`, `lsecs`).
enum FirmwareGeometry {
  static let file = "bios-geometry"

  /// A line for each disk that has one: its path in the tree of devices, cylinders, heads and sectors; a zero at the end.
  static func bytes(
    of drives: [(configuration: DriveConfiguration, address: PCIAddress?)], on shape: MachineShape
  ) -> [UInt8] {
    let lines = drives.compactMap { drive -> String? in
      guard let geometry = drive.configuration.firmwareGeometry else { return nil }
      guard let path = path(of: drive.configuration, at: drive.address, on: shape) else { return nil }
      return "\(path) \(geometry.cylinders) \(geometry.heads) \(geometry.sectors)"
    }
    return lines.isEmpty ? [] : Array(lines.joined(separator: "\n").utf8) + [0]
  }

  /// As Open Firmware names devices; the older PC's channels have two units each.
  private static func path(
    of drive: DriveConfiguration, at address: PCIAddress?, on shape: MachineShape
  ) -> String? {
    let bus = "/pci@i0cf8"
    switch drive.interface {
    case .virtio:
      guard let address else { return nil }
      let function = address.function == 0 ? "" : "," + String(address.function, radix: 16)
      return "\(bus)/scsi@\(String(address.device, radix: 16))\(function)/disk@0,0"
    case .ahci:
      guard let port = drive.port, drive.media == .disk else { return nil }
      if shape == .pc { return "\(bus)/ide@1,1/drive@\(port / 2)/disk@\(port % 2)" }
      return "\(bus)/pci8086,2922@1f,2/drive@\(port)/disk@0"
    }
  }
}

extension QEMUMachine {
  /// As on QEMU, a reset brings the file up to what is there then.
  func tellFirmwareOfGeometries(_ control: MachineControl) {
    let (firmware, machine) = (assembled.firmware, assembled.machine)
    machine.lock.withLock {
      try? firmware.add(file: FirmwareGeometry.file, bytes: [])
      Self.update(firmware, control)
      control.observe { [weak control] event in
        switch event {
        case .reset, .deviceDeleted: if let control { Self.update(firmware, control) }
        default: break
        }
      }
    }
  }

  private static func update(_ firmware: FirmwareConfig, _ control: MachineControl) {
    // It is there, and small.
    try? firmware.change(
      file: FirmwareGeometry.file, bytes: FirmwareGeometry.bytes(of: control.attachedDrives, on: control.shape))
  }
}
