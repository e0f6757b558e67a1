// SPDX-License-Identifier: Apache-2.0
import EventLoop
import Glibc
import HostSystem

/// A layer that keeps everything a guest writes in a temporary disk, and leaves the disk below as it is (`snapshot=on`).
///
/// The overlay is as long as the disk, and sparse. A map says of each sector where it is now; since a sector is the
/// smallest thing that a request can change, nothing is ever copied from below, and requests that overlap need no order
/// beyond what disks give them. A sector belongs to the overlay from the completion of the first write on. What is flushed
/// here is gone with the process all the same, so flushes have nothing to do. Loop thread only; a read of sectors in both
/// places allocates, other requests do not.
public final class SnapshotDriver: LayerDriver {
  private let overlay: BlockDriver
  private var overlaySink: OverlaySink!
  // Sectors whose content is in the overlay.
  private var map: SectorMap
  // Bytes of the lower disk that show through; beyond there is only the overlay.
  private var lowerBytes: UInt64
  private var splits: [UnsafeMutablePointer<BlockRequest>: SplitRead] = [:]

  /// The owner that the overlay sees.
  private final class OverlaySink: BlockDriverOwner {
    unowned(unsafe) let driver: SnapshotDriver
    init(driver: SnapshotDriver, loop: EventLoop) {
      self.driver = driver
      super.init(loop: loop)
    }
    override func driverCompleted(_ request: UnsafeMutablePointer<BlockRequest>) {
      driver.overlayServed(request)
      driver.lowerCompleted(request)
    }
    override func completeLater(_ request: UnsafeMutablePointer<BlockRequest>) {
      driver.overlayServed(request)
      driver.lowerCompletesLater(request)
    }
  }

  /// Puts `overlay`, which is as long as `lower` and reads as zeroes, over `lower`; both belong to the new driver.
  /// - Parameter loop: the loop that the backend on top runs on.
  public init(over lower: BlockDriver, overlay: BlockDriver, loop: EventLoop) throws(SystemError) {
    self.overlay = overlay
    lowerBytes = lower.byteCount
    map = try SectorMap(sectorCount: lower.byteCount / BlockBackend.sectorBytes)
    super.init(over: lower, loop: loop)
    let sink = OverlaySink(driver: self, loop: loop)
    overlaySink = sink
    overlay.ownerReference = Unmanaged.passUnretained(sink)
  }

  public override var byteCount: UInt64 { overlay.byteCount }
  public override var supportsDiscard: Bool { overlay.supportsDiscard }
  public override var supportsWriteZeroes: Bool { overlay.supportsWriteZeroes }
  public override var discardGranularityBytes: Int { overlay.discardGranularityBytes }
  public override var mergedRequestCount: UInt64 { lower.mergedRequestCount + overlay.mergedRequestCount }

  // MARK: Requests

  public override func submit(_ request: UnsafeMutablePointer<BlockRequest>) {
    switch request.pointee.operation {
    case .read: read(request)
    case .flush:
      request.pointee.result = 0
      completeLater(request)
    case .write, .discard, .writeZeroes:
      // Nothing here outlives the process, so nothing has to be durable.
      request.pointee.forceUnitAccess = false
      overlay.submit(request)
    }
  }

  private func read(_ request: UnsafeMutablePointer<BlockRequest>) {
    guard request.pointee.byteCount > 0 else { return overlay.submit(request) }
    let first = part(at: request.pointee.offset, byteCount: request.pointee.byteCount)
    if first.byteCount == request.pointee.byteCount { return first.driver.submit(request) }
    let split = SplitRead(request)
    splits[split.part] = split
    submitNext(of: split)
  }

  /// The driver that has the bytes from `offset` on, and how many of `byteCount` it has.
  private func part(at offset: UInt64, byteCount: UInt64) -> (driver: BlockDriver, byteCount: UInt64) {
    guard offset < lowerBytes else { return (overlay, byteCount) }
    let end = min(offset + byteCount, lowerBytes)
    let unit = BlockBackend.sectorBytes
    let run = map.run(in: offset / unit..<(end + unit - 1) / unit)
    return (run.isMember ? overlay : lower, min(run.count * unit, end - offset))
  }

  private func submitNext(of split: SplitRead) {
    let next = part(at: split.offset, byteCount: split.left)
    split.prepare(byteCount: next.byteCount)
    next.driver.submit(split.part)
  }

  /// The overlay has served a request; after a change it has the content of the whole range.
  private func overlayServed(_ request: UnsafeMutablePointer<BlockRequest>) {
    guard request.pointee.operation != .read else { return }
    // It is as durable as it will ever be.
    request.pointee.forceUnitAccess = true
    let unit = BlockBackend.sectorBytes
    guard request.pointee.result == 0, request.pointee.byteCount > 0 else { return }
    let end = request.pointee.offset + request.pointee.byteCount
    map.insert(request.pointee.offset / unit..<(end + unit - 1) / unit)
  }

  override func lowerCompleted(_ request: UnsafeMutablePointer<BlockRequest>) {
    guard !splits.isEmpty, let split = splits[request] else { return complete(request) }
    goOn(split)
  }

  override func lowerCompletesLater(_ request: UnsafeMutablePointer<BlockRequest>) {
    guard !splits.isEmpty, let split = splits[request] else { return completeLater(request) }
    goOn(split)
  }

  /// A part of a read is there.
  private func goOn(_ split: SplitRead) {
    split.advance()
    if split.part.pointee.result == 0 && split.left > 0 { return submitNext(of: split) }
    splits[split.part] = nil
    split.whole.pointee.result = split.part.pointee.result
    completeLater(split.whole)
  }

  // MARK: Both drivers

  public override func resize(to byteCount: UInt64) throws(SystemError) {
    let old = overlay.byteCount
    let sectors = max(byteCount, old) / BlockBackend.sectorBytes
    try map.resize(sectorCount: sectors)
    try overlay.resize(to: byteCount)
    // What was cut off does not come back from below.
    lowerBytes = min(lowerBytes, byteCount)
  }

  public override func drainBegins() {
    super.drainBegins()
    overlay.drainBegins()
  }

  public override func drainEnds() {
    overlay.drainEnds()
    super.drainEnds()
  }

  public override func close() {
    super.close()
    overlay.close()
  }

  public override func detach() {
    super.detach()
    overlay.detach()
  }

  public override func attach(to loop: EventLoop) throws(SystemError) {
    let former = self.loop
    try super.attach(to: loop)
    do { try overlay.attach(to: loop) } catch {
      lower.detach()
      try super.attach(to: former)
      throw error
    }
    overlaySink.loop = loop
  }
}

/// A read whose bytes are in both places: it is served part after part, each by a request of its own.
private final class SplitRead {
  /// The request as it came.
  let whole: UnsafeMutablePointer<BlockRequest>
  /// The request for the part under way.
  let part: UnsafeMutablePointer<BlockRequest>
  /// Where the next part begins on the disk, and bytes from there to the end.
  private(set) var offset: UInt64
  private(set) var left: UInt64
  private let iovecs: UnsafeMutablePointer<iovec>
  // Where the next part's data begins in the whole's scatter list.
  private var index = 0
  private var skipped = 0

  init(_ whole: UnsafeMutablePointer<BlockRequest>) {
    self.whole = whole
    offset = whole.pointee.offset
    left = whole.pointee.byteCount
    part = .allocate(capacity: 1)
    part.initialize(to: BlockRequest())
    part.pointee.client = whole.pointee.client
    iovecs = .allocate(capacity: max(1, Int(whole.pointee.iovecCount)))
  }

  deinit {
    part.deallocate()
    iovecs.deallocate()
  }

  /// Makes `part` the request for the next `byteCount` bytes.
  func prepare(byteCount: UInt64) {
    var count: Int32 = 0
    var needed = Int(byteCount)
    var (index, skipped) = (self.index, self.skipped)
    while needed > 0, index < Int(whole.pointee.iovecCount), let list = whole.pointee.iovecs {
      let piece = min(list[index].iov_len - skipped, needed)
      if piece > 0, let base = list[index].iov_base {
        iovecs[Int(count)] = iovec(iov_base: base + skipped, iov_len: piece)
        count += 1
      }
      needed -= piece
      skipped += piece
      if skipped == list[index].iov_len {
        index += 1
        skipped = 0
      }
    }
    (self.index, self.skipped) = (index, skipped)
    part.pointee.operation = .read
    part.pointee.offset = offset
    part.pointee.byteCount = byteCount
    part.pointee.iovecs = iovecs
    part.pointee.iovecCount = count
    part.pointee.result = 0
  }

  /// The part under way is done.
  func advance() {
    offset += part.pointee.byteCount
    left -= part.pointee.byteCount
  }
}
