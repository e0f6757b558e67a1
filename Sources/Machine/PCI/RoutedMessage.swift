// SPDX-License-Identifier: Apache-2.0

/// The message of one MSI or MSI-X vector, and the accelerator's route that sends it.
///
/// A vector's lock guards it. The route is made when the vector is first used, and stays until `take`.
struct RoutedMessage {
  private(set) var message = MSIMessage(address: 0, data: 0)
  // Retained until `take`; unmanaged, so that `fire` counts no reference.
  private var route: Unmanaged<InterruptRoute>?
  private var routeIsCurrent = false

  var hasRoute: Bool { route != nil }

  /// Changes what the guest wants to be sent; the route learns it by `updateRoute`.
  mutating func set(_ message: MSIMessage) {
    if message == self.message { return }
    self.message = message
    routeIsCurrent = false
  }

  /// Takes a new route, which knows no message yet.
  mutating func adopt(_ route: Unmanaged<InterruptRoute>) {
    self.route = route
    routeIsCurrent = false
  }

  /// Tells the route the message where it does not know it yet. An accelerator may take its time over it.
  mutating func updateRoute() {
    if routeIsCurrent { return }
    guard let route else { return }
    route._withUnsafeGuaranteedRef { $0.update(message) }
    routeIsCurrent = true
  }

  /// Sends the message as the route knows it. Nothing without a route.
  @inline(__always)
  func fire() { route?._withUnsafeGuaranteedRef { $0.fire() } }

  /// Gives the route away: the caller closes it outside the vector's lock.
  mutating func take() -> Unmanaged<InterruptRoute>? {
    routeIsCurrent = false
    return route.take()
  }
}

extension Optional where Wrapped == Unmanaged<InterruptRoute> {
  /// Closes and releases a route that `RoutedMessage.take` has given away.
  func close() {
    guard let route = self else { return }
    route.takeUnretainedValue().close()
    route.release()
  }
}
