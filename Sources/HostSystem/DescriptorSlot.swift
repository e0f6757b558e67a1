// SPDX-License-Identifier: Apache-2.0
import Synchronization

/// A place from which a descriptor is taken once, by whatever thread comes first: descriptors cannot be captured by the
/// closure that a thread runs. What nobody has taken is closed with the slot.
public final class DescriptorSlot: Sendable {
  private let content: Mutex<OwnedDescriptor?>

  /// Puts a descriptor in.
  public init(_ descriptor: consuming OwnedDescriptor) {
    content = Mutex(descriptor)
  }

  /// Takes it out; nil where it was taken before.
  public func take() -> OwnedDescriptor? { content.withLock { $0.take() } }

  /// Two connected sockets, each in a slot.
  public static func pair() throws -> (near: DescriptorSlot, far: DescriptorSlot) {
    try StreamSocket.pair { near, far in (DescriptorSlot(near), DescriptorSlot(far)) }
  }
}
