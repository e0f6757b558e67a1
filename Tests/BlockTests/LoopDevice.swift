// SPDX-License-Identifier: Apache-2.0
// A real block device over a file, where the host lets us make one.
import CLinux
import Glibc
import HostSystem
import Testing

/// A loop device that goes away with this object.
final class LoopDevice {
  // <linux/loop.h>
  private static let getFree: UInt = 0x4c82
  private static let setDescriptor: UInt = 0x4c00
  private static let clearDescriptor: UInt = 0x4c01
  /// Others may take the free device that we were told of.
  private static let attemptsMax = 20

  let path: String
  private let device: OwnedDescriptor

  init(over file: String) throws(SystemError) {
    let control = try OwnedDescriptor.open("/dev/loop-control", flags: O_RDWR)
    let image = try OwnedDescriptor.open(file, flags: O_RDWR)
    for _ in 0..<Self.attemptsMax {
      let number = try checked("LOOP_CTL_GET_FREE") { clinux_ioctl(control.number, Self.getFree, 0) }
      let device = try OwnedDescriptor.open("/dev/loop\(number)", flags: O_RDWR)
      let result = clinux_ioctl(device.number, Self.setDescriptor, UInt(image.number))
      if result == 0 {
        path = "/dev/loop\(number)"
        self.device = device
        return
      }
      if result != -EBUSY { throw SystemError("LOOP_SET_FD", code: -result) }
    }
    throw SystemError("LOOP_SET_FD", code: EBUSY)
  }

  deinit { _ = clinux_ioctl(device.number, Self.clearDescriptor, 0) }

  /// Whether this host lets us make such devices.
  static let works: Bool = {
    guard let file = try? TemporaryFile([UInt8](repeating: 0, count: 1 << 20)) else { return false }
    return (try? LoopDevice(over: file.path)) != nil
  }()
}
