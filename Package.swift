// swift-tools-version: 6.1
// SPDX-License-Identifier: Apache-2.0
// One target per module of the house. The order here is the order of the floors: a module imports only what stands above it.
import PackageDescription

// Release builds drop the exclusivity checks and specialise across modules: the hot path crosses six of them, and the
// two flags together decide its cost. Debug and test builds keep every check.
let swiftSettings: [SwiftSetting] = [
  .unsafeFlags(["-enforce-exclusivity=unchecked", "-cross-module-optimization"], .when(configuration: .release))
]

func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: swiftSettings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(name: name, dependencies: dependencies)
}

let package = Package(
  name: "spindle",
  products: [
    .executable(name: "spindle", targets: ["spindle"]),
    // In a folder of its own, so that it is never taken for QEMU by a PATH that leads to Spindle.
    .executable(name: "qemu/qemu-system-x86_64", targets: ["QEMUSystem"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
  ],
  targets: [
    // Floor 0: C shims.
    .target(name: "CLinux"),
    .target(name: "CLinuxAIO"),
    .target(name: "CURing", linkerSettings: [.linkedLibrary("uring")]),
    .target(name: "CKVM"),
    .target(name: "CTracing"),
    .systemLibrary(name: "CPixman", pkgConfig: "pixman-1", providers: [.apt(["libpixman-1-dev"])]),
    .systemLibrary(name: "CFreeType", pkgConfig: "freetype2", providers: [.apt(["libfreetype-dev"])]),
    .target(name: "CPNG", linkerSettings: [.linkedLibrary("png")]),
    // Floor 1
    module("HostSystem", ["CLinux", "CURing"]),
    module("GuestMemory", ["HostSystem"]),
    module("GuestDrivers"),
    module("Tracing", ["CLinux", "CTracing", .product(name: "Histogram", package: "hdrhistogram-swift")]),
    module("Pictures", ["CFreeType", "CPNG", "CPixman"]),
    // Images that boot, written into a Swift file by the plugin. They are data to every floor.
    .plugin(name: "GuestImagePlugin", capability: .buildTool(), path: "Tools/GuestImagePlugin"),
    .target(name: "GuestImages", path: "Images/GuestImages", plugins: ["GuestImagePlugin"]),
    // Floor 2
    module("EventLoop", ["CURing", "HostSystem", "Tracing"]),
    // Floor 3
    module("AsyncIO", ["CLinux", "CLinuxAIO", "CURing", "EventLoop", "HostSystem", "Tracing"]),
    // Floor 4
    module("Block", ["AsyncIO", "EventLoop", "HostSystem", "Tracing"]),
    // Floor 5
    module(
      "Machine",
      ["CLinux", "GuestMemory", "EventLoop", "HostSystem", "Tracing", .product(name: "Logging", package: "swift-log")]),
    // Floor 6
    module("VirtioBlock", ["Machine", "Block", "Tracing"]),
    module("AHCI", ["Machine", "Block", "EventLoop", "GuestMemory", "Tracing"]),
    module("Platform", ["Machine", "EventLoop", "HostSystem"]),
    // Floor 7
    module("Accelerators", ["CKVM", "CLinux", "EventLoop", "GuestDrivers", "GuestMemory", "HostSystem", "Machine"]),
    // Floor 8
    module("Assembly", ["VirtioBlock", "AHCI", "Platform", "Accelerators"]),
    module(
      "Bench",
      [
        "AHCI", "Assembly", "AsyncIO", "Block", "EventLoop", "HostSystem",
        .product(name: "Histogram", package: "hdrhistogram-swift"),
      ]),
    module(
      "WakeupLab",
      [
        "Assembly", "AsyncIO", "Bench", "CLinux", "EventLoop", "GuestDrivers", "GuestImages", "HostSystem", "Pictures",
        "Tracing", .product(name: "Histogram", package: "hdrhistogram-swift"),
      ]),
    module(
      "QEMUCommandLine", ["Accelerators", "AHCI", "Assembly", "HostSystem", "Machine", "Monitor", "Platform"]),
    module("Conformance", ["GuestDrivers", "HostSystem"]),
    module(
      "Monitor", ["Assembly", "AsyncIO", "Block", "CLinux", "CPNG", "EventLoop", "HostSystem", "Machine", "Tracing"]),
    // Floor 9
    .executableTarget(
      name: "spindle",
      dependencies: [
        "Assembly", "AsyncIO", "Bench", "Conformance", "EventLoop", "GuestImages", "Monitor", "Pictures",
        "QEMUCommandLine", "Tracing", "WakeupLab", .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: swiftSettings),
    .executableTarget(
      name: "QEMUSystem", dependencies: ["Assembly", "Block", "HostSystem", "Machine", "QEMUCommandLine"],
      swiftSettings: swiftSettings),
    // Tests
    tests("EventLoopTests", ["CURing", "EventLoop", "HostSystem"]),
    .target(name: "TracingTestKit", dependencies: ["Tracing"], path: "Tests/TracingTestKit"),
    tests("TracingTests", ["CLinux", "CTracing", "Tracing", "HostSystem", "TracingTestKit"]),
    tests("AsyncIOTests", ["AsyncIO", "CLinux", "CLinuxAIO", "CURing", "EventLoop", "HostSystem"]),
    tests("BlockTests", ["Block", "AsyncIO", "CLinux", "EventLoop", "HostSystem"]),
    tests("VirtioBlockTests", ["VirtioBlock", "DeviceTestKit"]),
    .target(name: "DeviceTestKit", dependencies: ["Block", "Machine"], path: "Tests/DeviceTestKit"),
    tests("AHCITests", ["AHCI", "Machine", "Block", "EventLoop", "GuestMemory", "DeviceTestKit"]),
    tests("AssemblyTests", ["Assembly", "Tracing", "TracingTestKit"]),
    tests(
      "MonitorTests",
      [
        "Monitor", "Assembly", "Block", "CPNG", "EventLoop", "HostSystem", "Machine", "Platform", "Tracing",
        "TracingTestKit",
      ]),
    tests("BenchTests", ["Bench", "Assembly", "AsyncIO", "EventLoop"]),
    tests(
      "WakeupLabTests",
      ["WakeupLab", "Accelerators", "Assembly", "EventLoop", "GuestDrivers", "Pictures", "Tracing", "TracingTestKit"]),
    tests(
      "QEMUCommandLineTests", ["QEMUCommandLine", "AHCI", "Assembly", "Block", "HostSystem", "Machine", "Monitor"]),
    .testTarget(
      name: "ConformanceTests", dependencies: ["Conformance", "GuestDrivers", "HostSystem", "QEMUCommandLine"],
      exclude: ["Scripts"]),
    tests("GuestDriversTests", ["GuestDrivers"]),
    tests("GuestImagesTests", ["GuestImages"]),
    tests("GuestMemoryTests", ["GuestMemory", "HostSystem"]),
    tests("MachineTests", ["Machine", "GuestMemory", "EventLoop", "HostSystem"]),
    tests("BootTests", ["Platform", "GuestMemory"]),
    tests(
      "AcceleratorsTests",
      ["Accelerators", "Platform", "Machine", "GuestDrivers", "GuestMemory", "GuestImages", "EventLoop", "HostSystem"]),
    tests(
      "QTestTests",
      [
        "Accelerators", "AHCI", "Assembly", "Block", "CLinux", "DeviceTestKit", "EventLoop", "GuestMemory",
        "HostSystem",
        "Machine", "VirtioBlock",
      ]),
    tests("PicturesTests", ["CPNG", "Pictures"]),
    // They start the program; they know nothing of its modules.
    tests("QEMUSystemTests", ["QEMUSystem"]),
    tests("PlatformTests", ["Platform", "Machine", "GuestMemory", "EventLoop", "HostSystem"]),
  ],
  swiftLanguageModes: [.v6]
)
