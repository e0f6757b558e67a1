// SPDX-License-Identifier: Apache-2.0
import Foundation
import PackagePlugin

/// Builds the bootable guest images within `swift build`, by one run of `Tools/build-image` for each.
///
/// The script compiles for the bare machine with the toolchain that runs this plugin, so the host's flags (sanitizers,
/// coverage) never reach a guest. Only the generated Swift file is declared as output: an ELF file declared here would
/// become a resource of the target.
@main
struct GuestImagePlugin: BuildToolPlugin {
  /// The folders under `Images` that hold an image each.
  static let images = ["testguest"]

  func createBuildCommands(context: PluginContext, target: Target) throws -> [Command] {
    let package = context.package.directoryURL
    let script = package.appending(path: "Tools/build-image")
    // The tool's own folder, since the toolchain need not be in PATH.
    let toolchain = try context.tool(named: "swiftc").url.deletingLastPathComponent()
    let drivers = try files(in: package.appending(path: "Sources/GuestDrivers"))
    return try GuestImagePlugin.images.map { name in
      let folder = package.appending(path: "Images/\(name)")
      let generated = context.pluginWorkDirectoryURL.appending(path: "\(name).swift")
      let output = context.pluginWorkDirectoryURL.appending(path: name)
      return .buildCommand(
        displayName: "Guest image \(name)",
        executable: URL(filePath: "/bin/sh"),
        arguments: [
          script.path(percentEncoded: false), toolchain.path(percentEncoded: false),
          folder.path(percentEncoded: false), generated.path(percentEncoded: false),
          output.path(percentEncoded: false),
        ],
        inputFiles: try [script] + drivers + files(in: folder),
        outputFiles: [generated])
    }
  }

  private func files(in folder: URL) throws -> [URL] {
    try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
      .filter { !$0.lastPathComponent.hasPrefix(".") }
      .sorted { $0.path < $1.path }
  }
}
