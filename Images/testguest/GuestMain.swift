// SPDX-License-Identifier: Apache-2.0
import CGuest

/// The start info that a PVH loader leaves (Xen, public/arch-x86/hvm/start_info.h), version 1.
enum StartInfo {
  static let magic: UInt32 = 0x336E_C578
  static let commandLine: UInt64 = 24
  static let memoryMap: UInt64 = 40
  static let memoryMapCount: UInt64 = 48
  static let entryBytes: UInt64 = 24
  static let typeRAM: UInt32 = 1
  /// More entries or a longer command line are not looked at.
  static let entriesMax: UInt32 = 128
  static let commandLineBytesMax = 1024

  /// The bytes of the command line.
  static func readCommandLine(_ info: UInt64) -> [UInt8] {
    let address = cguest_read64(info + commandLine)
    var bytes: [UInt8] = []
    guard address != 0, address < Memory.end else {
      return bytes
    }
    bytes.reserveCapacity(64)
    while bytes.count < commandLineBytesMax {
      let byte = cguest_read8(address + UInt64(bytes.count))
      if byte == 0 {
        break
      }
      bytes.append(byte)
    }
    return bytes
  }

  /// The RAM that follows the image; empty where the map does not say that there is any.
  static func memoryAfterImage(_ info: UInt64) -> PhysicalMemory {
    let imageEnd = cguest_image_end_address()
    let map = cguest_read64(info + memoryMap)
    let count = min(cguest_read32(info + memoryMapCount), entriesMax)
    for index in 0..<UInt64(count) where map != 0 {
      let entry = map + index * entryBytes
      let begin = cguest_read64(entry)
      let end = begin &+ cguest_read64(entry + 8)
      if cguest_read32(entry + 16) == typeRAM, begin <= imageEnd, end > imageEnd {
        return PhysicalMemory(begin: imageEnd, end: min(end, Memory.end))
      }
    }
    return PhysicalMemory(begin: imageEnd, end: imageEnd)
  }
}

/// How the image uses memory.
enum Memory {
  /// What entry.S maps.
  static let end: UInt64 = 1 << 32
  /// Arrays and objects of the program; it allocates while it sets things up only.
  static let heapBytes: UInt64 = 1 << 20
}

/// QEMU's firmware configuration device, which says how many processors there are.
enum FirmwareConfiguration {
  static let selector: UInt16 = 0x510
  static let data: UInt16 = 0x511
  static let signatureKey: UInt16 = 0x00
  static let processorCountKey: UInt16 = 0x05
  static let processorsMax = 64

  /// How many processors the machine has; 1 where nothing says so.
  static func processorCount() -> Int {
    cguest_out16(selector, signatureKey)
    let signature: StaticString = "QEMU"
    for index in 0..<signature.utf8CodeUnitCount where cguest_in8(data) != signature.utf8Start[index] {
      return 1
    }
    cguest_out16(selector, processorCountKey)
    let low = Int(cguest_in8(data))
    let high = Int(cguest_in8(data))
    return max(1, min(low | high << 8, processorsMax))
  }
}

/// The largest exit code: this many failures or more.
let failuresMax = 127

/// Where entry.S goes on: on the boot processor, in long mode, with interrupts off.
@_cdecl("guest_main")
func guestMain() -> UInt32 {
  let info = cguest_start_info_address()
  guard info != 0, cguest_read32(info) == StartInfo.magic else {
    cguest_refuse_start()
  }
  Metal.memory = StartInfo.memoryAfterImage(info)
  guard let heap = Metal.memory.take(byteCount: Memory.heapBytes, alignment: 4096) else {
    cguest_refuse_start()
  }
  cguest_set_heap(heap, heap + Memory.heapBytes)
  let commandLine = StartInfo.readCommandLine(info)
  Metal.processorCount = FirmwareConfiguration.processorCount()
  cguest_set_up_interrupts()
  cguest_enable_interrupts()
  if ThinkOptions(parsing: commandLine) != nil {
    guard let rates = ClockRates.find() else {
      cguest_refuse_clock()
    }
    Metal.rates = rates
  }
  let failures = BootProgram.run(on: MetalBus(), commandLine: commandLine)
  return UInt32(min(failures, failuresMax))
}

/// Where entry.S goes on: on an application processor, in long mode, with interrupts off.
@_cdecl("guest_processor_main")
func guestProcessorMain() {
  cguest_load_interrupt_table()
  let program = Metal.processorProgram
  cguest_answer()
  cguest_enable_interrupts()
  program?(MetalBus())
}
