// SPDX-License-Identifier: Apache-2.0
//
// Accelerators: where virtual processors come from. `KVM` has their threads in KVM_RUN, with ioeventfds and irqfds;
// `Hosted` has them as threads of this process that run the guest program compiled in; `QTest` has none, and another
// process makes the accesses. All carry an access to
// the `Machine` and a message to an interrupt controller, and nothing more: no device, no block layer, and no guest
// program but what it is given lives here.
import Machine

extension MSIMessage {
  /// Bits 31:20 of an address that local APICs listen to; the bits above are zero (Intel SDM 3A §11.11.1).
  static let apicPrefix: UInt64 = 0xfee

  /// Whether the message is an interrupt at all: a guest may give a vector any address, and a device's write to another
  /// one is lost here.
  @inline(__always)
  var isInterrupt: Bool { address >> 20 == Self.apicPrefix }
}
