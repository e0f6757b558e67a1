// SPDX-License-Identifier: Apache-2.0
// Machine code for guests of a few instructions: 32-bit protected mode, as PVH enters it (opcodes: Intel SDM volume 2).

/// A register's number in an opcode.
enum Register: UInt8 {
  case eax, ecx, edx, ebx, esp, ebp, esi, edi
}

struct GuestCode {
  private(set) var bytes: [UInt8] = []

  mutating func emit(_ code: UInt8...) { bytes += code }

  private mutating func emit32(_ value: UInt32) {
    bytes += (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }

  /// mov register, value
  mutating func set(_ register: Register, _ value: UInt32) {
    emit(0xb8 + register.rawValue)
    emit32(value)
  }

  /// Writes `value` to a port.
  mutating func out(_ port: UInt16, width: Int, _ value: UInt32) {
    set(.eax, value)
    set(.edx, UInt32(port))
    outAccumulator(width: width)
  }

  /// out dx, al / ax / eax
  mutating func outAccumulator(width: Int) {
    switch width {
    case 1: emit(0xee)
    case 2: emit(0x66, 0xef)
    default: emit(0xef)
    }
  }

  /// Reads a port into the low bits of the word at `result`; its other bits are zero.
  mutating func `in`(_ port: UInt16, width: Int, to result: UInt32) {
    emit(0x31, 0xc0)
    set(.edx, UInt32(port))
    switch width {
    case 1: emit(0xec)
    case 2: emit(0x66, 0xed)
    default: emit(0xed)
    }
    storeAccumulator(at: result)
  }

  /// mov [address], eax
  mutating func storeAccumulator(at address: UInt32) {
    emit(0xa3)
    emit32(address)
  }

  /// Reads a CPUID leaf; EAX and EBX go to the words at `result`: cpuid; mov [result + 4], ebx
  mutating func cpuid(_ leaf: UInt32, to result: UInt32) {
    set(.eax, leaf)
    set(.ecx, 0)
    emit(0x0f, 0xa2, 0x89, 0x1d)
    emit32(result + 4)
    storeAccumulator(at: result)
  }

  /// mov dword [address], value
  mutating func write32(_ address: UInt32, _ value: UInt32) {
    emit(0xc7, 0x05)
    emit32(address)
    emit32(value)
  }

  /// Copies `width` bytes by one load and one store of that width; eight go through an MMX register.
  mutating func copy(from source: UInt32, to destination: UInt32, width: Int) {
    set(.esi, source)
    set(.edi, destination)
    switch width {
    case 1: emit(0x8a, 0x06, 0x88, 0x07)
    case 2: emit(0x66, 0x8b, 0x06, 0x66, 0x89, 0x07)
    case 4: emit(0x8b, 0x06, 0x89, 0x07)
    default: emit(0x0f, 0x6f, 0x06, 0x0f, 0x7f, 0x07)
    }
  }

  /// rep outsb / outsw / outsd: `count` elements from `source` to a port.
  mutating func outString(_ port: UInt16, width: Int, count: UInt32, from source: UInt32) {
    set(.esi, source)
    set(.ecx, count)
    set(.edx, UInt32(port))
    emit(0xfc)
    switch width {
    case 1: emit(0xf3, 0x6e)
    case 2: emit(0x66, 0xf3, 0x6f)
    default: emit(0xf3, 0x6f)
    }
  }

  /// rep insb / insw / insd: `count` elements from a port to `destination`.
  mutating func inString(_ port: UInt16, width: Int, count: UInt32, to destination: UInt32) {
    set(.edi, destination)
    set(.ecx, count)
    set(.edx, UInt32(port))
    emit(0xfc)
    switch width {
    case 1: emit(0xf3, 0x6c)
    case 2: emit(0x66, 0xf3, 0x6d)
    default: emit(0xf3, 0x6d)
    }
  }

  /// Halts for good: cli; hlt; back to hlt.
  mutating func halt() { emit(0xfa, 0xf4, 0xeb, 0xfd) }

  /// Takes interrupts for good, halting in between: sti; hlt; back to sti.
  mutating func haltForInterrupts() { emit(0xfb, 0xf4, 0xeb, 0xfc) }

  /// Never ends and never leaves the processor.
  mutating func spin() { emit(0xeb, 0xfe) }

  /// Passes the time of so many instructions: mov ecx, count; loop to itself.
  mutating func delay(_ count: UInt32) {
    set(.ecx, count)
    emit(0xe2, 0xfe)
  }

  /// lidt [address]
  mutating func loadInterruptTable(at address: UInt32) {
    emit(0x0f, 0x01, 0x1d)
    emit32(address)
  }

  /// lgdt [address]
  mutating func loadSegmentTable(at address: UInt32) {
    emit(0x0f, 0x01, 0x15)
    emit32(address)
  }

  /// jmp to an address, through a register
  mutating func jump(to address: UInt32) {
    set(.eax, address)
    emit(0xff, 0xe0)
  }
}
