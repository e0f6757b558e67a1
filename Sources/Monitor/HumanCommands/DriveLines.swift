// SPDX-License-Identifier: Apache-2.0
import Assembly

/// `drive_add`: a drive that a device is given later, in the words of the command line's `-drive`.
extension MonitorCommands {
  /// Takes `[-n] ADDRESS if=none,key=value,…`. The address says nothing: a drive with if=none is on no bus.
  func humanAddDrive(_ words: [String]) throws(ControlError) {
    let words = words.first == "-n" ? Array(words.dropFirst()) : words
    guard words.count >= 2 else { throw ControlError("drive_add: string expected") }
    var parts = words[1].split(separator: ",", omittingEmptySubsequences: false)
    // As -drive without if=: a disk on the board, which nothing is added to any more.
    let interface = parts.last { $0.hasPrefix("if=") }.map { String($0.dropFirst("if=".count)) } ?? "ide"
    guard interface == "none" else { throw ControlError("Can't hot-add drive to type \(interface); write if=none") }
    parts.removeAll { $0.hasPrefix("if=") }
    if !parts.contains(where: { $0.hasPrefix("id=") }) { parts.append("id=\(freeDriveName)"[...]) }
    try target.addDrive(try Self.drive(parts.joined(separator: ",")))
  }

  /// A name for a drive that its user has given none.
  private var freeDriveName: String {
    var number = 0
    while target.drives.contains(where: { $0.name == "none\(number)" }) { number += 1 }
    return "none\(number)"
  }

  private static func drive(_ text: String) throws(ControlError) -> DriveConfiguration {
    do throws(UsageError) {
      let list = try OptionList(text, option: "drive_add", known: DriveConfiguration.keys, isOther: { _ in true })
      if list["file"] == nil, list["driver"] == nil {
        return DriveConfiguration(source: .empty, id: list["id"] ?? "")
      }
      return try DriveConfiguration(parsing: text, index: 0)
    } catch {
      throw ControlError(error.description.replacing("--drive", with: "drive_add"))
    }
  }
}
