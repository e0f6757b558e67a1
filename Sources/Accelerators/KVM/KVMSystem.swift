// SPDX-License-Identifier: Apache-2.0
import CKVM
import CLinux
import Glibc
import HostSystem

/// Whether this host's KVM can carry a machine.
public enum KVMAvailability: Equatable, Sendable {
  /// A machine and a processor were made and taken down again.
  case usable
  /// It cannot, and this is why, as part of a line.
  case unusable(String)
}

/// Why a machine could not be put on KVM, as one line.
public struct KVMError: Error, Equatable, CustomStringConvertible, Sendable {
  /// The line.
  public let description: String

  init(_ what: String, _ error: SystemError) { description = "/dev/kvm: \(what): \(SystemError.text(of: error.code))" }
  init(_ what: String) { description = "/dev/kvm: \(what)" }
}

/// The calls of the KVM interface (Documentation/virt/kvm/api.rst), with errors typed.
enum KVMCall {
  static let apiVersion: Int32 = 12

  @discardableResult
  static func integer(
    _ descriptor: Int32, _ request: UInt, _ argument: UInt = 0, _ name: StaticString
  ) throws(SystemError) -> Int32 {
    try checked(name) { ckvm_ioctl(descriptor, request, argument) }
  }

  @discardableResult
  static func structure<T>(
    _ descriptor: Int32, _ request: UInt, _ value: inout T, _ name: StaticString
  ) throws(SystemError) -> Int32 {
    try checked(name) {
      withUnsafeMutablePointer(to: &value) { ckvm_ioctl(descriptor, request, UInt(bitPattern: $0)) }
    }
  }
}

/// The virtual machine as KVM sees it: descriptors of the system and of the machine.
final class KVMVirtualMachine: Sendable {
  /// Pages that KVM wants for real mode and task switches; below the APICs, where nothing else is (q35's own choice).
  private static let identityMapAddress: UInt64 = 0xfeff_c000
  private static let taskStateAddress: UInt = 0xfeff_d000
  /// Where KVM does not say how many processors a machine may have, it is this many (api.rst, KVM_CREATE_VCPU).
  private static let processorsMaxUnsaid = 4
  /// APIC numbers have eight bits, and 0xff means all of them.
  private static let processorsMaxByAPIC = 255

  let system: OwnedDescriptor
  let machine: OwnedDescriptor
  /// Bytes of the run structure that each vCPU shares with the kernel.
  let runBytes: Int

  /// Makes a machine with the interrupt controllers in the kernel.
  init() throws(KVMError) {
    do {
      system = try OwnedDescriptor.open("/dev/kvm", flags: O_RDWR)
    } catch {
      throw KVMError("cannot be opened", error)
    }
    do throws(SystemError) {
      machine = OwnedDescriptor(taking: try KVMCall.integer(system.number, ckvm_CREATE_VM, 0, "KVM_CREATE_VM"))
      runBytes = Int(try KVMCall.integer(system.number, ckvm_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE"))
    } catch {
      throw KVMError("cannot make a machine (\(error.operation))", error)
    }
    try checkCapabilities()
    var identityMap = Self.identityMapAddress
    // Hosts without Intel's real-mode workaround may refuse both addresses; they do not need them.
    _ = try? KVMCall.structure(machine.number, ckvm_SET_IDENTITY_MAP_ADDR, &identityMap, "KVM_SET_IDENTITY_MAP_ADDR")
    _ = try? KVMCall.integer(machine.number, ckvm_SET_TSS_ADDR, Self.taskStateAddress, "KVM_SET_TSS_ADDR")
    do throws(SystemError) {
      try KVMCall.integer(machine.number, ckvm_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP")
    } catch {
      throw KVMError("cannot make a machine (\(error.operation))", error)
    }
  }

  /// What the accelerator cannot do without; irqfds and ioeventfds it can.
  private func checkCapabilities() throws(KVMError) {
    let version = (try? KVMCall.integer(system.number, ckvm_GET_API_VERSION, 0, "KVM_GET_API_VERSION")) ?? 0
    guard version == KVMCall.apiVersion else {
      throw KVMError("speaks version \(version) of its interface, not \(KVMCall.apiVersion)")
    }
    let required = [
      (KVM_CAP_USER_MEMORY, "guest memory in user space (KVM_CAP_USER_MEMORY)"),
      (KVM_CAP_IRQCHIP, "interrupt controllers in the kernel (KVM_CAP_IRQCHIP)"),
      (KVM_CAP_IRQ_ROUTING, "interrupt routes (KVM_CAP_IRQ_ROUTING)"),
      (KVM_CAP_SIGNAL_MSI, "message interrupts (KVM_CAP_SIGNAL_MSI)"),
      (KVM_CAP_IMMEDIATE_EXIT, "a way to stop a processor (KVM_CAP_IMMEDIATE_EXIT, Linux 4.13)"),
    ]
    for (capability, what) in required where !has(capability) { throw KVMError("lacks \(what)") }
  }

  /// What the host's KVM says about a capability (KVM_CAP_*); 0 where it does not know it.
  private func value(of capability: Int32) -> Int32 {
    (try? KVMCall.integer(machine.number, ckvm_CHECK_EXTENSION, UInt(capability), "KVM_CHECK_EXTENSION")) ?? 0
  }

  /// Whether the host's KVM has a capability.
  func has(_ capability: Int32) -> Bool { value(of: capability) > 0 }

  /// How many processors a machine may have here.
  var processorsMax: Int {
    let said = [KVM_CAP_MAX_VCPUS, KVM_CAP_NR_VCPUS].map { Int(value(of: $0)) }.first { $0 > 0 }
    return min(said ?? Self.processorsMaxUnsaid, Self.processorsMaxByAPIC)
  }

  /// Makes processor `index`.
  func makeProcessor(_ index: Int) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(taking: try KVMCall.integer(machine.number, ckvm_CREATE_VCPU, UInt(index), "KVM_CREATE_VCPU"))
  }

  /// Shows guest RAM to the guest. The memory stays mapped as long as this object lives.
  func setMemory(slot: UInt32, start: UInt64, byteCount: UInt64, host: UnsafeMutableRawPointer) throws(SystemError) {
    var region = kvm_userspace_memory_region(
      slot: slot, flags: 0, guest_phys_addr: start, memory_size: byteCount,
      userspace_addr: UInt64(UInt(bitPattern: host)))
    try KVMCall.structure(machine.number, ckvm_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION")
  }
}
