// SPDX-License-Identifier: Apache-2.0
import EventLoop
import HostSystem
import Synchronization

/// Pausing, draining, and moving a backend to another loop. Loop thread, where nothing else is said.
extension BlockBackend {
  /// The loop as other threads see it.
  struct Home: Sendable {
    var loop: EventLoop
    /// The backend has left the loop, or is about to, and has not arrived elsewhere.
    var isMoving = false
  }

  /// A backend on its way to another thread.
  struct Handover: @unchecked Sendable {
    // One thread at a time has the backend: the hand-over through the loop's queue orders their accesses.
    let backend: BlockBackend
  }

  // MARK: Pausing

  /// Requests that are submitted from here on are held, in order, and count as in flight; what the driver has goes on.
  /// Calls nest.
  public func pause() { pauseDepth += 1 }

  /// Ends one `pause`; with the last one, what was held is submitted.
  public func unpause() {
    precondition(pauseDepth > 0, "unpause without pause")
    pauseDepth -= 1
    guard pauseDepth == 0, !held.isEmpty else { return }
    var all = held.takeAll()
    submitAll(&all)
  }

  /// Hands requests to the driver as one batch.
  func submitAll(_ requests: inout RequestQueue) {
    loop.beginBatch()
    while let request = requests.takeFirst() { accept(request) }
    loop.endBatch()
  }

  /// Runs the loop until the driver has no request. In nested rounds; what clients submit meanwhile is waited for as
  /// well, so they, or the backend, are paused first. Requests that are kept here are not waited for.
  public func drain() {
    driverDrainBegins()
    while inFlight > keptCount { loop.runOnce(mayBlock: true) }
    driverDrainEnds()
  }

  /// Makes requests that wait for a command go on: what failed and stopped the machine is reported, what a fault keeps
  /// hanging goes to the disk. For a device that is about to become quiet; `drainEnded` ends it where the machine goes on.
  public func drainBegan() {
    drainDepth += 1
    reportStopped()
    driverDrainBegins()
  }

  /// Makes requests that wait for a command or for time go on, once: their device has given up the commands that they are
  /// for, and waits for them.
  public func hurry() {
    drainBegan()
    drainEnded()
  }

  /// As `hurry`, for a device that has given up every command of its own: a request that a breakpoint holds does not reach
  /// the disk any more, and fails.
  public func giveUp() {
    driver.clientGaveUp()
    hurry()
  }

  /// Makes requests that wait for time go on, once, while their device goes on.
  public func letWaitingGo() {
    driverDrainBegins()
    driverDrainEnds()
  }

  /// Ends `drainBegan`.
  public func drainEnded() {
    driverDrainEnds()
    drainDepth -= 1
  }

  /// Counted for limits that are put on meanwhile.
  private func driverDrainBegins() {
    driverDrainDepth += 1
    driver.drainBegins()
  }

  private func driverDrainEnds() {
    driver.drainEnds()
    driverDrainDepth -= 1
  }

  /// Lets everything complete, and gives back what the driver has on the loop. Nothing may be submitted any more. On the
  /// loop, once.
  public func close() {
    drainBegan()
    drain()
    driver.close()
  }

  /// Requests in flight that the driver does not have: they wait for `unpause` or `resume`.
  public var keptCount: Int {
    // Whatever waits for a flush of the backend's own is kept where that flush is.
    let unflushed = settling.isStopped ? settling.flushing.count + settling.waiting.count : 0
    return stopped.count + held.count + unflushed
  }

  // MARK: Moving

  /// Takes the backend, its driver and what it holds to another loop; requests in flight are waited for first.
  ///
  /// Called on the loop that the backend is on, from a round of it or between rounds, and not from a client's
  /// completion. Until `completion` runs, clients submit nothing except from completions that this call itself waits
  /// for; those requests are held and go to the disk on the new loop. From `completion` on the backend belongs to the
  /// thread on which that runs: the new loop's, or, where the driver could not follow, with the reason, the old one's.
  ///
  /// Devices that have watched descriptors on the old loop move those themselves.
  public func move(to newLoop: EventLoop, completion: @escaping @Sendable (SystemError?) -> Void) {
    loop.preconditionOnLoop()
    if newLoop === loop { return completion(nil) }
    pause()
    home.withLock { $0.isMoving = true }
    drain()
    driver.detach()
    let handover = Handover(backend: self)
    newLoop.execute { handover.backend.arrive(on: newLoop, completion) }
  }

  /// On the new loop's thread.
  private func arrive(on newLoop: EventLoop, _ completion: @escaping @Sendable (SystemError?) -> Void) {
    do throws(SystemError) {
      try driver.attach(to: newLoop)
      completeOn(newLoop)
      settleHere(nil, completion)
    } catch {
      let handover = Handover(backend: self)
      loop.execute { handover.backend.settleHere(error, completion) }
    }
  }

  private func settleHere(_ error: SystemError?, _ completion: @Sendable (SystemError?) -> Void) {
    home.withLock { $0 = Home(loop: loop) }
    // Whoever turned the write cache off while there was no home to send word to.
    flushIfDue()
    unpause()
    completion(error)
  }
}
