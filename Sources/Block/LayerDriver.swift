// SPDX-License-Identifier: Apache-2.0
import EventLoop
import HostSystem

/// A driver that stands on top of another one, which it owns. It passes everything on; subclasses change what they are
/// about. Loop thread only.
public class LayerDriver: BlockDriver {
  /// The driver below.
  public final let lower: BlockDriver
  private var sink: LowerSink!

  /// The owner that the lower driver sees.
  private final class LowerSink: BlockDriverOwner {
    unowned(unsafe) let driver: LayerDriver
    init(driver: LayerDriver, loop: EventLoop) {
      self.driver = driver
      super.init(loop: loop)
    }
    override func driverCompleted(_ request: UnsafeMutablePointer<BlockRequest>) { driver.lowerCompleted(request) }
    override func completeLater(_ request: UnsafeMutablePointer<BlockRequest>) { driver.lowerCompletesLater(request) }
  }

  /// Puts a layer over `lower`, which belongs to it from here on.
  /// - Parameter loop: the loop that the backend on top runs on.
  init(over lower: BlockDriver, loop: EventLoop) {
    self.lower = lower
    super.init()
    let sink = LowerSink(driver: self, loop: loop)
    self.sink = sink
    lower.ownerReference = Unmanaged.passUnretained(sink)
  }

  /// The loop that the layer is on.
  final var loop: EventLoop { sink.loop }

  /// The lower driver has finished a request.
  func lowerCompleted(_ request: UnsafeMutablePointer<BlockRequest>) { complete(request) }
  /// The lower driver has finished a request from inside its `submit`.
  func lowerCompletesLater(_ request: UnsafeMutablePointer<BlockRequest>) { completeLater(request) }

  public override var byteCount: UInt64 { lower.byteCount }
  public override var logicalBlockBytes: Int { lower.logicalBlockBytes }
  public override var physicalBlockBytes: Int { lower.physicalBlockBytes }
  public override var supportsDiscard: Bool { lower.supportsDiscard }
  public override var supportsWriteZeroes: Bool { lower.supportsWriteZeroes }
  public override var discardGranularityBytes: Int { lower.discardGranularityBytes }
  public override var mergedRequestCount: UInt64 { lower.mergedRequestCount }
  public override func resize(to byteCount: UInt64) throws(SystemError) { try lower.resize(to: byteCount) }
  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) { lower.submit(request) }
  public override func drainBegins() { lower.drainBegins() }
  public override func drainEnds() { lower.drainEnds() }
  public override func clientGaveUp() { lower.clientGaveUp() }
  public override func close() { lower.close() }
  public override func detach() { lower.detach() }
  public override func attach(to loop: EventLoop) throws(SystemError) {
    try lower.attach(to: loop)
    sink.loop = loop
  }
}
