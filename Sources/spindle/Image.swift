// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Assembly
import GuestImages
import HostSystem

struct Image: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write the built-in test guest to a file, for example to boot it on another virtual machine.",
    discussion: """
      Example:
        spindle image --output testguest.elf
        qemu-system-x86_64 -machine q35 -kernel testguest.elf \\
          -device isa-debug-exit,iobase=0xf4,iosize=4 …
      """)

  @Option(name: .shortAndLong, help: "The file to write.")
  var output: String

  func run() throws {
    do {
      try writeWholeFile(output, GuestImage.testguest)
    } catch {
      throw SetupError("--output \(output): \(SystemError.text(of: error.code))")
    }
  }
}
