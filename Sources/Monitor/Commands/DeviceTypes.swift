// SPDX-License-Identifier: Apache-2.0

/// A type of device, with QEMU's name for it.
struct DeviceType: Sendable {
  let name: String
  let parent: String
  var isAbstract = false
  /// Options of the type, each with the type of its value.
  var properties: [(name: String, type: String)] = []

  /// Types that a client finds, and their parents.
  static let all: [DeviceType] = [
    DeviceType(name: "device", parent: "object", isAbstract: true),
    DeviceType(name: "pci-device", parent: "device", isAbstract: true),
    DeviceType(name: "ide-device", parent: "device", isAbstract: true),
    DeviceType(name: "isa-device", parent: "device", isAbstract: true),
    DeviceType(name: "virtio-pci", parent: "pci-device", isAbstract: true),
    DeviceType(name: "virtio-blk-pci-base", parent: "virtio-pci", isAbstract: true),
    DeviceType(name: "virtio-blk-pci", parent: "virtio-blk-pci-base", properties: virtioProperties),
    DeviceType(name: "ich9-ahci", parent: "pci-device"),
    DeviceType(name: "ide-hd", parent: "ide-device", properties: driveProperties),
    DeviceType(name: "ide-cd", parent: "ide-device", properties: driveProperties),
    DeviceType(name: "isa-serial", parent: "isa-device"),
    DeviceType(name: "isa-debug-exit", parent: "isa-device"),
  ]

  private static let driveProperties = [
    ("drive", "str"), ("serial", "str"), ("ver", "str"), ("unit", "uint32"), ("werror", "BlockdevOnError"),
    ("rerror", "BlockdevOnError"),
  ]
  private static let virtioProperties = [
    ("drive", "str"), ("serial", "str"), ("addr", "int32"), ("num-queues", "uint16"), ("queue-size", "uint16"),
    ("werror", "BlockdevOnError"), ("rerror", "BlockdevOnError"),
  ]

  static func named(_ name: String) -> DeviceType? { all.first { $0.name == name } }

  /// Whether a type is this one or comes from it.
  func implements(_ ancestor: String) -> Bool {
    var current: DeviceType? = self
    while let type = current {
      if type.name == ancestor || type.parent == ancestor { return true }
      current = DeviceType.named(type.parent)
    }
    return false
  }
}
