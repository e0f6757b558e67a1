// SPDX-License-Identifier: Apache-2.0
// What a vCPU is before its first instruction: its CPUID, and the state in which PVH enters a kernel.
import CKVM
import Glibc
import HostSystem

extension KVMProcessor {
  /// CPUID leaves that name the processor's APIC (Intel SDM 2A, CPUID; AMD APM 3, E.4.15).
  private enum Leaf {
    /// Initial APIC number in EBX 31:24.
    static let features: UInt32 = 1
    /// x2APIC number in EDX, of every subleaf.
    static let topology: UInt32 = 0xb
    static let topologyV2: UInt32 = 0x1f
    /// AMD: extended APIC number in EAX.
    static let topologyAMD: UInt32 = 0x8000_001e
    /// The hypervisor's first leaf, with its last one in EAX (Documentation/virt/kvm/x86/cpuid.rst).
    static let hypervisor: UInt32 = 0x4000_0000
    /// The rates of the time-stamp counter (EAX) and of the local APIC's bus (EBX) in kHz, as VMware defined the leaf.
    static let clockRates: UInt32 = 0x4000_0010
  }

  /// The bus that KVM's local APIC timers count by: a nanosecond each cycle, where nobody asks for another one
  /// (api.rst, KVM_CAP_X86_APIC_BUS_CYCLES_NS).
  private static let busKHz: UInt32 = 1_000_000

  /// Shows the guest what the host's KVM supports, with this processor's APIC number in it.
  func setCPUID(_ virtualMachine: KVMVirtualMachine) throws(SystemError) {
    let entriesMax: UInt32 = 256
    // One more than KVM may fill, for the leaf that is added.
    guard let table = ckvm_cpuid_make(entriesMax + 1), let entries = ckvm_cpuid_entries(table) else {
      throw SystemError("calloc", code: ENOMEM)
    }
    defer { free(table) }
    table.pointee.nent = entriesMax
    try KVMCall.integer(
      virtualMachine.system.number, ckvm_GET_SUPPORTED_CPUID, UInt(bitPattern: table), "KVM_GET_SUPPORTED_CPUID")
    let number = UInt32(index)
    for position in 0..<Int(table.pointee.nent) {
      switch entries[position].function {
      case Leaf.features: entries[position].ebx = entries[position].ebx & 0x00ff_ffff | number << 24
      case Leaf.topology, Leaf.topologyV2: entries[position].edx = number
      case Leaf.topologyAMD: entries[position].eax = number
      default: break
      }
    }
    addClockRates(table, entries)
    try KVMCall.integer(descriptor.number, ckvm_SET_CPUID2, UInt(bitPattern: table), "KVM_SET_CPUID2")
  }

  /// Tells the guest how fast its clocks run, which it could only measure otherwise, on a machine without an interval
  /// timer. Where KVM does not know, or has such a leaf itself, nothing is added.
  private func addClockRates(
    _ table: UnsafeMutablePointer<kvm_cpuid2>, _ entries: UnsafeMutablePointer<kvm_cpuid_entry2>
  ) {
    let count = Int(table.pointee.nent)
    let rate = ckvm_ioctl(descriptor.number, ckvm_GET_TSC_KHZ, 0)
    guard rate > 0, let first = (0..<count).first(where: { entries[$0].function == Leaf.hypervisor }),
      entries[first].eax < Leaf.clockRates
    else { return }
    entries[first].eax = Leaf.clockRates
    entries[count].function = Leaf.clockRates
    entries[count].eax = UInt32(rate)
    entries[count].ebx = Self.busKHz
    table.pointee.nent += 1
  }

  /// Puts the processor where PVH wants it (Xen's docs/misc/pvh.pandoc): 32-bit protected mode, flat segments, no
  /// paging, interrupts off, the start info's address in EBX.
  func setPVHState(entry: UInt32, startInfo: UInt64) throws(SystemError) {
    var system = kvm_sregs()
    try KVMCall.structure(descriptor.number, ckvm_GET_SREGS, &system, "KVM_GET_SREGS")
    // Segment types as in a descriptor (Intel SDM 3A §3.4.5.1): code, read and accessed; data, written and accessed.
    system.cs = Self.flatSegment(selector: 8, type: 0xb)
    let data = Self.flatSegment(selector: 16, type: 3)
    system.ds = data
    system.es = data
    system.fs = data
    system.gs = data
    system.ss = data
    system.tr = Self.taskSegment(selector: 24)
    // Protection on (bit 0), extension type (bit 4) as hardware has it; paging and its helpers off.
    system.cr0 = 0x11
    system.cr3 = 0
    system.cr4 = 0
    system.efer = 0
    try KVMCall.structure(descriptor.number, ckvm_SET_SREGS, &system, "KVM_SET_SREGS")
    var registers = kvm_regs()
    registers.rip = UInt64(entry)
    registers.rbx = startInfo
    // Bit 1 always reads as one; interrupts are off.
    registers.rflags = 2
    try KVMCall.structure(descriptor.number, ckvm_SET_REGS, &registers, "KVM_SET_REGS")
  }

  private static func flatSegment(selector: UInt16, type: UInt8) -> kvm_segment {
    var segment = kvm_segment()
    segment.limit = 0xffff_ffff
    segment.selector = selector
    segment.type = type
    segment.present = 1
    segment.s = 1
    segment.db = 1
    segment.g = 1
    return segment
  }

  /// A 32-bit task, busy, with the smallest limit that the processor takes.
  private static func taskSegment(selector: UInt16) -> kvm_segment {
    var segment = kvm_segment()
    segment.limit = 0x67
    segment.selector = selector
    segment.type = 0xb
    segment.present = 1
    return segment
  }
}
