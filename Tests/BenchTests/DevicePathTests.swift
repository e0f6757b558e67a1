// SPDX-License-Identifier: Apache-2.0
// Our own side of `spindle bench virtio` and `spindle bench ahci`, shortly, on a disk in memory.
import Assembly
import Testing

@testable import Bench

@Suite struct DevicePathTests {
  private static let diskBytes: UInt64 = 1 << 20

  private func expectLoad(_ path: DevicePath) throws {
    let figures = try path.run()
    #expect(figures.requestCount >= 2000)
    #expect(figures.errorCount == 0)
    #expect(figures.iops > 0)
    #expect(figures.medianMicroseconds <= figures.p99Microseconds)
    #expect(figures.userMicroseconds + figures.systemMicroseconds > 0)
    #expect(figures.doorbells > 0 && figures.doorbells <= 1)
  }

  @Test(.timeLimit(.minutes(2)), arguments: [DriveConfiguration.Interface.ahci, .virtio], [1, 32])
  func guestLoadsADiskOfTheMainLoop(interface: DriveConfiguration.Interface, depth: Int) throws {
    for operation in [Workload.Operation.randomRead, .randomWrite] {
      let workload = Workload(operation: operation, blockBytes: 4096, spanBytes: Self.diskBytes)
      try expectLoad(
        AHCIBench.devicePath(
          interface, source: .memory(byteCount: Self.diskBytes), workload, depth: depth, seconds: 0.01))
    }
  }

  @Test(.timeLimit(.minutes(2)), arguments: [1, 16])
  func guestThatLooksLoadsADiskWithALoopOfItsOwn(depth: Int) throws {
    let workload = Workload(operation: .randomRead, blockBytes: 4096, spanBytes: Self.diskBytes)
    let drive = DriveConfiguration(source: .memory(byteCount: Self.diskBytes), id: "bench")
    try expectLoad(DevicePath(drive: drive, workload: workload, depth: depth, seconds: 0.01))
  }

  @Test func moreQueuedCommandsThanADiskHasAreRefused() {
    let workload = Workload(operation: .randomRead, blockBytes: 4096, spanBytes: Self.diskBytes)
    let path = AHCIBench.devicePath(
      .ahci, source: .memory(byteCount: Self.diskBytes), workload, depth: AHCIBench.depthMax + 1, seconds: 0.01)
    #expect(throws: BenchError.self) { try path.run() }
  }
}
