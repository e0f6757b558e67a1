// SPDX-License-Identifier: Apache-2.0
import GuestMemory
import Platform
import Testing

/// hvm_start_info as a guest reads it (Xen's arch-x86/hvm/start_info.h).
private struct StartInfo {
  struct Range: Equatable {
    var start: UInt64
    var byteCount: UInt64
    var type: UInt32
  }
  struct Module: Equatable {
    var address: UInt64
    var bytes: [UInt8]
    var commandLine: UInt64
  }
  var magic: UInt32
  var version: UInt32
  var rsdp: UInt64
  var commandLine: String
  var map: [Range]
  var modules: [Module]

  init(_ memory: GuestMemory, at address: UInt64) throws {
    magic = try memory.load(at: address)
    version = try memory.load(at: address + 4)
    rsdp = try memory.load(at: address + 32)
    let text: UInt64 = try memory.load(at: address + 24)
    var bytes: [UInt8] = []
    while try memory.load(UInt8.self, at: text + UInt64(bytes.count)) != 0 {
      bytes.append(try memory.load(at: text + UInt64(bytes.count)))
    }
    commandLine = String(decoding: bytes, as: UTF8.self)
    let moduleList: UInt64 = try memory.load(at: address + 16)
    modules = try (0..<UInt64(try memory.load(UInt32.self, at: address + 12))).map { index in
      let entry = moduleList + 32 * index
      let start: UInt64 = try memory.load(at: entry)
      let count: UInt64 = try memory.load(at: entry + 8)
      return Module(
        address: start, bytes: try memory.bytes(at: start, count: Int(count)),
        commandLine: try memory.load(at: entry + 16))
    }
    let table: UInt64 = try memory.load(at: address + 40)
    map = try (0..<UInt64(try memory.load(UInt32.self, at: address + 48))).map { index in
      let entry = table + 24 * index
      return Range(
        start: try memory.load(at: entry), byteCount: try memory.load(at: entry + 8),
        type: try memory.load(at: entry + 16))
    }
  }
}

@Suite struct PVHLoaderTests {
  private let memory = GuestMemory()

  private func add(_ start: UInt64, _ byteCount: UInt64) throws {
    try memory.add(try GuestRegion(start: start, byteCount: byteCount))
  }

  @Test func segmentsLieAtTheirPhysicalAddressesAndTheRestOfThemIsZero() throws {
    try add(0, 4 << 20)
    try memory.fill(address: 0, byteCount: 4 << 20, with: 0xcc)
    let boot = try PVHLoader.load(image: try ELFImage(ELFBuilder.kernel().bytes), into: memory, commandLine: "")
    #expect(boot.entry == 0x10_0000)
    #expect(try memory.bytes(at: 0x10_0000, count: 3) == [0xf4, 0xeb, 0xfd])
    #expect(try memory.bytes(at: 0x10_0003, count: 0x100) == [UInt8](repeating: 0, count: 0x100))
    #expect(try memory.load(UInt8.self, at: 0x10_0103) == 0xcc)
    #expect(try memory.load(UInt8.self, at: 0xf_ffff) == 0xcc)
  }

  @Test func theStartInfoDescribesTheMachine() throws {
    try add(0, 4 << 20)
    try add(1 << 32, 2 << 20)
    let modules: [[UInt8]] = [[1, 2, 3], [], [UInt8](repeating: 9, count: 5000)]
    let boot = try PVHLoader.load(
      image: try ELFImage(ELFBuilder.kernel().bytes), into: memory, commandLine: "seed=7 größe", modules: modules)
    let info = try StartInfo(memory, at: boot.startInfo)
    #expect(info.magic == 0x336e_c578)
    #expect(info.version == 1)
    #expect(info.rsdp == 0)
    #expect(info.commandLine == "seed=7 größe")
    #expect(
      info.map == [
        .init(start: 0, byteCount: 0xa_0000, type: 1), .init(start: 1 << 20, byteCount: 3 << 20, type: 1),
        .init(start: 1 << 32, byteCount: 2 << 20, type: 1),
      ])
    #expect(info.modules.map(\.bytes) == modules)
    #expect(info.modules.allSatisfy { $0.commandLine == 0 && $0.address % 4096 == 0 && $0.address > 0x10_0102 })
    #expect(boot.startInfo < 0xa_0000 && boot.startInfo >= 0x1000)
  }

  @Test func withoutModulesThereIsNoModuleList() throws {
    try add(0, 4 << 20)
    let boot = try PVHLoader.load(image: try ELFImage(ELFBuilder.kernel().bytes), into: memory, commandLine: "")
    #expect(try memory.load(UInt64.self, at: boot.startInfo + 16) == 0)
    #expect(try StartInfo(memory, at: boot.startInfo).commandLine.isEmpty)
  }

  @Test func theStartInfoKeepsClearOfAnImageInLowMemory() throws {
    try add(0, 4 << 20)
    var builder = ELFBuilder.kernel(at: 0x1000)
    builder.headers[1].memoryBytes = 0x9_f000
    let boot = try PVHLoader.load(image: try ELFImage(builder.bytes), into: memory, commandLine: "quiet")
    #expect(boot.startInfo >= 1 << 20)
    #expect(try StartInfo(memory, at: boot.startInfo).commandLine == "quiet")
    #expect(try memory.bytes(at: 0x1000, count: 3) == [0xf4, 0xeb, 0xfd])
  }

  @Test func modulesKeepClearOfTheImage() throws {
    try add(0, 4 << 20)
    let module = [UInt8](repeating: 5, count: 0x1_0000)
    // Code in the middle of the only megabytes there are.
    let boot = try PVHLoader.load(
      image: try ELFImage(ELFBuilder.kernel(at: 0x10_8000).bytes), into: memory, commandLine: "", modules: [module])
    #expect(try StartInfo(memory, at: boot.startInfo).modules.first?.address == 0x10_9000)
    #expect(try memory.bytes(at: 0x10_8000, count: 3) == [0xf4, 0xeb, 0xfd])
  }

  /// Nothing may be written before everything has been checked.
  private func expectUntouched() throws {
    #expect(try memory.bytes(at: 0, count: 4 << 20).allSatisfy { $0 == 0 })
  }

  @Test(arguments: [0x3f_ff00, 0x40_0000, 0xfee0_0000, 0x1_0000_0000, UInt64.max - 0x103])
  func anImageBeyondMemoryDoesNotFit(address: UInt64) throws {
    try add(0, 4 << 20)
    var builder = ELFBuilder.kernel()
    var second = builder.headers[1]
    second.physical = address
    builder.headers.append(second)
    let image = try ELFImage(builder.bytes)
    let error = try #require(throws: BootError.self) {
      _ = try PVHLoader.load(image: image, into: memory, commandLine: "")
    }
    #expect(error == .doesNotFit(start: address, byteCount: 0x103, memoryBytes: 4 << 20))
    #expect(error.description.hasPrefix("does not fit into 4 MiB: it wants 259 bytes at 0x"))
    try expectUntouched()
  }

  @Test func aModuleThatFindsNoRoomIsRefused() throws {
    try add(0, 4 << 20)
    let image = try ELFImage(ELFBuilder.kernel().bytes)
    let error = try #require(throws: BootError.self) {
      _ = try PVHLoader.load(
        image: image, into: memory, commandLine: "", modules: [[1], [UInt8](repeating: 1, count: 3 << 20)])
    }
    #expect(error.description == "leaves no room in 4 MiB for a module of 3145728 bytes; give it more with --memory")
    try expectUntouched()
  }

  @Test func anImageThatFillsMemoryLeavesNoRoomForTheStartInfo() throws {
    try add(0, 4 << 20)
    var builder = ELFBuilder.kernel(at: 0)
    builder.headers[1].memoryBytes = 4 << 20
    let image = try ELFImage(builder.bytes)
    let error = try #require(throws: BootError.self) {
      _ = try PVHLoader.load(image: image, into: memory, commandLine: "")
    }
    #expect(error.description.hasPrefix("leaves no room in 4 MiB for the start info"))
  }

  @Test func aCommandLineIsTakenUpToItsLimit() throws {
    try add(0, 4 << 20)
    let image = try ELFImage(ELFBuilder.kernel().bytes)
    let longest = String(repeating: "x", count: PVHLoader.commandLineBytesMax - 1)
    #expect(throws: BootError.badCommandLine("of 4096 bytes; 4095 at most")) {
      _ = try PVHLoader.load(image: image, into: memory, commandLine: longest + "x")
    }
    #expect(throws: BootError.badCommandLine("with a zero byte in it")) {
      _ = try PVHLoader.load(image: image, into: memory, commandLine: "a\0b")
    }
    try expectUntouched()
    let boot = try PVHLoader.load(image: image, into: memory, commandLine: longest)
    #expect(try StartInfo(memory, at: boot.startInfo).commandLine == longest)
  }
}
