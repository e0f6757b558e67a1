// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// How long this process lives.
public enum ProcessLife {
  /// Sends the process a SIGTERM when the thread that started it ends (`PR_SET_PDEATHSIG`). Any thread; a parent that has
  /// ended before is not noticed.
  public static func endWithParent() throws(SystemError) {
    _ = try checked("prctl") { clinux_signal_at_parents_end(SIGTERM) }
  }
}
