// SPDX-License-Identifier: Apache-2.0
import EventLoop

/// A layer that holds requests back, for their time or until somebody lets them go. A subclass says what is held.
///
/// Whoever waits for the disk to be idle, and whoever takes the loop away, gets what is held first. Loop thread only.
public class HoldingDriver: LayerDriver {
  /// Calls of `drainBegins` without their `drainEnds`.
  private var drainDepth: Int
  private var timer: Timer?

  private final class Timer: DriverTimer {
    unowned(unsafe) let driver: HoldingDriver
    init(driver: HoldingDriver, loop: EventLoop) {
      self.driver = driver
      super.init(loop: loop)
    }
    override func fired() { driver.timeCame() }
  }

  /// Puts the layer over `lower`, which belongs to it from here on.
  /// - Parameter drainDepth: calls of `drainBegins` that `lower` has had without their `drainEnds`.
  init(over lower: BlockDriver, loop: EventLoop, drainDepth: Int = 0) {
    self.drainDepth = drainDepth
    super.init(over: lower, loop: loop)
  }

  deinit { timer?.end() }

  // MARK: For subclasses

  /// Someone waits for the disk to be idle: nothing may be held now.
  final var isDraining: Bool { drainDepth > 0 }

  /// Has `timeCame` called at a time of `HostClock`, or soon if that has passed; replaces an earlier time.
  final func wake(atNanoseconds due: UInt64) {
    let timer = self.timer ?? Timer(driver: self, loop: loop)
    self.timer = timer
    timer.armSoon(atNanoseconds: due)
  }

  /// Forgets the time of `wake`.
  final func wakeNoMore() { timer?.disarm() }

  /// The time of `wake` has come.
  func timeCame() {}

  /// Lets go on what waits for somebody.
  func release() {}

  // MARK: Layer

  public override func drainBegins() {
    drainDepth += 1
    release()
    super.drainBegins()
  }

  public override func drainEnds() {
    super.drainEnds()
    drainDepth -= 1
  }

  public override func close() {
    timer?.end()
    super.close()
  }

  public override func detach() {
    release()
    timer?.end()
    timer = nil
    super.detach()
  }
}
