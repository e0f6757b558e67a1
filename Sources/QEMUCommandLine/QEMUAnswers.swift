// SPDX-License-Identifier: Apache-2.0
import Assembly

/// What the command line answers where it was asked, in the forms that programs look for.
public enum QEMUAnswers {
  /// The answer to a question, without a line's end.
  public static func text(of question: QEMUPlan.Question) -> String {
    switch question {
    case .version: "Spindle, with the command line of QEMU 7.2"
    case .help: help
    case .list("accel"): "Accelerators supported in QEMU binary:\nqtest\nkvm"
    case .list("machine"):
      "Supported machines are:\nnone                 empty machine\n"
        + "pc                   Standard PC (the hardware of q35)\nq35                  Standard PC (Q35 + ICH9)"
    case .list: DevicePlanner.deviceNames.map { "name \"\($0)\"" }.joined(separator: "\n")
    }
  }

  private static let help = """
    usage: qemu-system-x86_64 [options]

    Spindle behind QEMU's command line, for test programs that speak qtest and QMP;
    see `spindle --help` for Spindle's own.

      -machine none|pc|q35[,accel=qtest|kvm]   the board (pc and q35 are the same)
      -accel qtest|kvm                         who plays the processor
      -m SIZE, -smp N                          memory in MiB, processors
      -drive file=PATH,if=none|ide|virtio,id=NAME,…
                                               also blkdebug:CONFIG:PATH, null-co://
      -blockdev driver=…,node-name=NAME,…      a block node
      -device ide-hd|ide-cd|virtio-blk-pci|virtio-blk-device|isa-debug-exit,…
      -global DRIVER.PROPERTY=VALUE            a property of every such device
      -object iothread,id=NAME
      -qtest unix:PATH|tcp:127.0.0.1:PORT|stdio, -qtest-log FILE
      -qmp ADDRESS, -chardev …, -mon chardev=ID,mode=control, -object monitor-qmp,…
      -kernel FILE -append TEXT                an ELF image with a PVH note, on KVM
      -serial stdio|file:PATH|none, -S, -fw_cfg, -rtc, -pidfile
      -no-reboot, -no-shutdown, -action reboot=shutdown,shutdown=pause
      -boot order=…,once=…, -uuid UUID         what a firmware is told
      -run-with exit-with-parent=on            ends with the process that started it
      -display none, -nodefaults and others that change nothing here

    SPINDLE_QEMU_VERSION=7.2|10.0 in the environment says which QEMU's replies the
    monitor's clients expect; by itself, 10.0 where -audio is given, else 7.2.
    """
}
