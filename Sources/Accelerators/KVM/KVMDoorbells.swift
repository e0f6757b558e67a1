// SPDX-License-Identifier: Apache-2.0
import CKVM
import Glibc
import HostSystem
import Logging
import Machine

/// The doorbells that KVM rings itself: a guest's write to one signals its eventfd without an exit (KVM_IOEVENTFD).
///
/// Guarded by the machine lock. Where KVM refuses one (it takes about a thousand), the write exits as any other does,
/// and the device does what the eventfd would have done.
final class KVMDoorbells {
  private struct Place: Hashable {
    var address: UInt64
    var width: Int
  }

  private static let deassign: UInt32 = 1 << 2

  private let machine: KVMVirtualMachine
  private let isOffered: Bool
  private var registered: Set<Place> = []
  private var hasWarned = false

  init(of machine: KVMVirtualMachine) {
    self.machine = machine
    isOffered = machine.has(KVM_CAP_IOEVENTFD)
  }

  func add(_ doorbell: Doorbell) {
    do throws(SystemError) {
      guard isOffered else { throw SystemError("KVM_IOEVENTFD", code: ENOTTY) }
      try change(doorbell, flags: 0)
      registered.insert(Place(address: doorbell.address, width: doorbell.width))
    } catch {
      // The machine works without, only slower; once is enough to know why.
      if !hasWarned { Logger(label: "kvm").warning("doorbells exit to the device: \(error)") }
      hasWarned = true
    }
  }

  func remove(_ doorbell: Doorbell) {
    guard registered.remove(Place(address: doorbell.address, width: doorbell.width)) != nil else { return }
    do throws(SystemError) {
      try change(doorbell, flags: Self.deassign)
    } catch {
      // KVM keeps ringing an eventfd that nobody listens to; the guest's writes to this address go nowhere.
      Logger(label: "kvm").error("a doorbell at \(doorbell.address) cannot be taken back: \(error)")
    }
  }

  private func change(_ doorbell: Doorbell, flags: UInt32) throws(SystemError) {
    var request = kvm_ioeventfd()
    request.addr = doorbell.address
    request.len = UInt32(doorbell.width)
    request.fd = doorbell.event.number
    request.flags = flags
    try KVMCall.structure(machine.machine.number, ckvm_IOEVENTFD, &request, "KVM_IOEVENTFD")
  }
}
