// SPDX-License-Identifier: Apache-2.0
import AsyncIO
import Glibc

/// `qemu-img bench` on the same file with the same engine, block size and depth: the same layers of another house, without
/// a device. It counts requests, not time, and has no random order; instead it strides over the file.
struct QemuImgPeer {
  /// What is loaded.
  enum Target {
    /// A file or block device.
    case file(path: String, engine: EngineKind, isDirect: Bool)
    /// A disk without bytes (null-co); reads leave the buffer as it is.
    case null
  }

  /// Whether qemu-img is installed.
  static let isInstalled = PeerTool.isInstalled("qemu-img")

  /// Blocks between two requests of a load that stands for a random one: odd, so that every block of a file of 2^n is
  /// visited before one is visited again.
  private static let strideBlocks = 1237
  private static let countMax = 1_000_000_000

  /// What is loaded.
  var target: Target
  /// What to do; a read or a write.
  var workload: Workload
  /// Requests in flight.
  var depth: Int

  /// QEMU's name of an engine (`aio=`).
  static func engineName(_ kind: EngineKind) -> String {
    switch kind {
    case .ioUring: "io_uring"
    case .linuxAIO: "native"
    case .threads: "threads"
    }
  }

  /// Who a result is compared with.
  var name: String {
    switch target {
    case .file(_, let engine, _): "qemu-img \(Self.engineName(engine))"
    case .null: "qemu-img null-co"
    }
  }

  /// Whether this qemu-img does such requests here; it may have been built without an engine.
  var works: Bool { Self.isInstalled && (try? run(count: depth)) != nil }

  /// Runs about as many requests as take `seconds` at a rate of `iops`.
  /// - Returns: requests per second.
  func run(seconds: Double, likeIOPS iops: Double) throws(BenchError) -> Double {
    let count = min(Self.countMax, max(Int(seconds * iops), 4 * depth))
    let elapsed = try run(count: count)
    // It prints milliseconds.
    guard elapsed > 0 else { throw BenchError("qemu-img was too fast to be measured: \(command(count: count))") }
    return Double(count) / elapsed
  }

  private func run(count: Int) throws(BenchError) -> Double {
    let command = command(count: count)
    guard let seconds = Self.parse(try PeerTool.output(of: command)) else {
      throw BenchError("qemu-img printed nothing that can be read: \(command)")
    }
    return seconds
  }

  /// The shell's command line.
  func command(count: Int) -> String {
    let step = workload.isSequential ? workload.blockBytes : workload.blockBytes * Self.strideBlocks
    var words = [
      "qemu-img", "bench", "-c", "\(count)", "-d", "\(depth)", "-s", "\(workload.blockBytes)", "-S", "\(step)",
    ]
    if workload.isWrite { words.append("-w") }
    switch target {
    case .file(let path, let engine, let isDirect):
      words += ["-t", isDirect ? "none" : "writeback", "-i", Self.engineName(engine), "--image-opts"]
      // A comma ends an option; two stand for one.
      let escaped = path.split(separator: ",", omittingEmptySubsequences: false).joined(separator: ",,")
      let driver = Self.isBlockDevice(path) ? "host_device" : "file"
      words.append(
        PeerTool.quoted(
          "driver=raw,size=\(workload.spanBytes),file.driver=\(driver),file.filename=\(escaped)"))
    case .null:
      words += ["--image-opts", "driver=null-co,read-zeroes=off,size=\(workload.spanBytes)"]
    }
    return words.joined(separator: " ")
  }

  private static func isBlockDevice(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFBLK
  }

  /// The seconds of "Run completed in X seconds."; nil where there is no such line.
  static func parse(_ text: String) -> Double? {
    let (prefix, suffix) = ("Run completed in ", " seconds.")
    for line in text.split(separator: "\n") where line.hasPrefix(prefix) && line.hasSuffix(suffix) {
      return Double(line.dropFirst(prefix.count).dropLast(suffix.count))
    }
    return nil
  }
}
