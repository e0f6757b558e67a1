// SPDX-License-Identifier: Apache-2.0

/// What a booted guest does: the command line chooses among the programs.
public enum BootProgram {
  /// Runs the thinking load where the command line says `load=think`, else the test of the machine and its disks.
  /// Boot processor.
  /// - Returns: how many cases or requests failed.
  public static func run<B: SleepingBus>(on bus: B, commandLine: [UInt8]) -> Int {
    if let load = ThinkProgram(bus: bus, commandLine: commandLine) {
      return load.run()
    }
    return TestProgram(bus: bus, commandLine: commandLine).run()
  }
}
