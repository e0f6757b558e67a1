// SPDX-License-Identifier: Apache-2.0
import AsyncIO

/// Makes writes durable where the engine has no writes that are: a flush follows each, in the request's own operation,
/// and the request completes with it. Loop thread only.
final class DurableWrites: IOCompletionSink {
  private unowned(unsafe) let driver: FileDriver

  init(driver: FileDriver) { self.driver = driver }

  /// Takes over the completion of a write that is about to be submitted.
  func prepare(_ request: UnsafeMutablePointer<BlockRequest>) {
    request.pointee.io.forceUnitAccess = false
    request.pointee.io.sink = Unmanaged.passUnretained(self)
  }

  override func completed(_ operation: UnsafeMutablePointer<IOOperation>) {
    guard let context = operation.pointee.context else { return }
    if operation.pointee.opcode == .write && operation.pointee.result == 0 {
      driver.flush(operation)
    } else if !driver.flushesAgain(operation) {
      driver.finishDirect(context.assumingMemoryBound(to: BlockRequest.self), operation.pointee.result)
    }
  }
}
