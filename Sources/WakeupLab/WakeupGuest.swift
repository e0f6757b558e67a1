// SPDX-License-Identifier: Apache-2.0
import Accelerators
import Assembly

/// What carries the guest that thinks and reads.
public enum WakeupGuest: String, CaseIterable, Sendable {
  /// A thread of this process: no KVM is needed, and the guest itself costs almost nothing.
  case hosted
  /// The built-in test guest, booted on the host's KVM: real exits, real interrupts, and a processor that halts.
  case kvm

  /// Asks the host.
  /// - Throws: why such a guest cannot run here, as one line that names the option and the way out.
  public func check() throws(SetupError) {
    guard self == .kvm, case .unusable(let reason) = KVMAccelerator.probe() else { return }
    throw SetupError("--guest kvm: \(reason); use --guest hosted")
  }
}
