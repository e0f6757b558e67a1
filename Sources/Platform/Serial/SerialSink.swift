// SPDX-License-Identifier: Apache-2.0
import Synchronization

/// Where a serial port's output goes, and where its input comes from. Every function is called with the machine lock held.
open class SerialSink {
  /// The port that this is the other end of; set when the port is made.
  public internal(set) weak var port: SerialPort?

  /// For subclasses.
  public init() {}

  /// Takes bytes that the guest has sent; they are valid during the call. Called with a few dozen bytes at a time.
  open func write(_ bytes: UnsafeBufferPointer<UInt8>) {}

  /// The port took less than `SerialPort.receive` offered before, and has room again. Called on the main loop.
  open func inputWanted() {}

  /// The port leaves the machine; nothing is written afterwards.
  open func close() {}
}

/// Keeps what the guest sends in memory, for tests and for a result that is looked at afterwards.
public final class MemorySink: SerialSink, @unchecked Sendable {
  private let received = Mutex<[UInt8]>([])
  private let writes = Mutex(0)

  /// An empty sink.
  public override init() { super.init() }

  /// Everything written until now. Any thread.
  public var bytes: [UInt8] { received.withLock { $0 } }
  /// The same as text; bytes that are not UTF-8 show as replacement characters. Any thread.
  public var text: String { String(decoding: bytes, as: UTF8.self) }
  /// How many times the port wrote. Any thread.
  public var writeCount: Int { writes.withLock { $0 } }

  public override func write(_ bytes: UnsafeBufferPointer<UInt8>) {
    let copy = Array(bytes)
    received.withLock { $0 += copy }
    writes.withLock { $0 += 1 }
  }
}
