// SPDX-License-Identifier: Apache-2.0

/// What every engine does; a reference for those who write one. Drivers use a concrete engine, so nothing on the hot path
/// is called through this.
///
/// An operation that was submitted is completed exactly once, through its sink, on the loop's thread and never from
/// inside `submit`. It, its iovecs and the memory behind them belong to the engine until then.
public protocol IOEngine: AnyObject {
  /// What users call it (`aio=`).
  static var name: String { get }
  /// Takes an operation. Loop thread.
  func submit(_ operation: UnsafeMutablePointer<IOOperation>)
  /// Operations that were taken and are not completed.
  var inFlightCount: Int { get }
}
