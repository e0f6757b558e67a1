// SPDX-License-Identifier: Apache-2.0
import Glibc
import HostSystem

/// A fresh folder for the files of one machine; it is removed, with what is directly in it, when the owner lets go.
final class TemporaryFolder: Sendable {
  let path: String

  /// Makes the folder in TMPDIR, or in /tmp where that is not set or too long for the sockets.
  init() throws(TransportError) {
    var parent = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    if parent.utf8.count > StreamSocket.pathBytesMax / 2 { parent = "/tmp" }
    var template = Array("\(parent)/spindle-conform-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else {
      throw TransportError(.system, "mkdtemp in \(parent): \(SystemError.text(of: errno))")
    }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// The path of a file in the folder.
  func file(_ name: String) -> String { "\(path)/\(name)" }

  deinit {
    if let folder = opendir(path) {
      while let entry = readdir(folder) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != ".", name != ".." { unlink("\(path)/\(name)") }
      }
      closedir(folder)
    }
    rmdir(path)
  }
}
