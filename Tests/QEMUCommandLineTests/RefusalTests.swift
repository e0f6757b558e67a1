// SPDX-License-Identifier: Apache-2.0
// What is refused, with one line that names the option, the value and the way out.
import Assembly
import Testing

@testable import QEMUCommandLine

@Suite struct RefusalTests {
  /// The line of the error.
  private func refusal(_ line: String) -> String? {
    do {
      _ = try plan(line)
      return nil
    } catch {
      return "\(error)"
    }
  }

  @Test(arguments: [
    ("-warp", "-warp: unknown option; see --help for those that there are"),
    ("-drive", "-drive: needs a value after it"),
    ("-M vax", "-machine vax: unknown; there are q35, pc and none"),
    ("-M q35,warp=9", "-machine: unknown key 'warp' (warp=9)"),
    ("-accel warp", "-accel warp: unknown; there are qtest and kvm"),
    (
      "-accel tcg", "-accel tcg: Spindle executes no instructions itself; use -accel kvm, or -accel qtest"
    ),
    ("-machine none -drive file=/a,if=ide", "-machine none: has no bus for devices; write -machine q35"),
    ("-device ide-hd,drive=x", "-device ide-hd: drive=x names no drive or node that there is"),
    ("-device ide-hd", "-device ide-hd: names no drive="),
    ("-device virtio-blk-pci", "-device virtio-blk-pci: names no drive="),
    (
      "-drive if=none,id=d,file=/a -device ide-hd,drive=d,bus=ide.6",
      "-device ide-hd: bus=ide.6 is unknown; write bus=ide.0 to bus=ide.5"
    ),
    (
      "-drive if=none,id=a,file=/a -drive if=none,id=b,file=/b -device ide-hd,drive=a,bus=ide.1 -device ide-hd,drive=b,bus=ide.1",
      "-device ide-hd: bus=ide.1 is taken; choose another port"
    ),
    (
      "-drive if=none,id=d,file=/a -device ide-hd,drive=d -device ide-hd,drive=d",
      "-device ide-hd: drive=d is in use by another device"
    ),
    ("-drive if=floppy,file=/a", "-drive: if=floppy is not offered; choose none, ide or virtio"),
    ("-drive file=/a,media=tape", "-drive: media=tape is unknown; choose disk or cdrom"),
    (
      "-drive file=/a,format=qcow2",
      "-drive: format=qcow2 is not offered; convert the image (qemu-img convert -O raw)"
    ),
    ("-drive file=/a,format=vmdk", "-drive: format=vmdk is not offered; write format=raw"),
    ("-drive if=none,id=d,file=/a -drive if=none,id=d,file=/b", "-drive: id=d is given twice; choose another"),
    ("-drive file=/a,index=32", "-drive: index=32 is not a whole number from 0 to 31"),
    (
      "-drive file=/a,if=ide,index=6",
      "-drive: index=6: that port is taken, or there is none; ports are 0 to 5"
    ),
    (
      "-drive file=/a,index=1 -drive file=/b,index=1",
      "-drive: index=1: that port is taken, or there is none; ports are 0 to 5"
    ),
    (
      "-drive if=none,id=d,file=/a -device ide-hd,drive=d,bus=ide.1,unit=1",
      "-device ide-hd: unit=1: a port has one drive; write bus=ide.0 to bus=ide.5"
    ),
    (
      "-drive if=none,id=d,file=/a -device ide-hd,drive=d,bus=ide.1 -device ide-cd,bus=ide.1",
      "-device ide-cd: bus=ide.1 is taken; choose another port"
    ),
    ("-device ide-cd,id=a -device ide-cd,id=a", "-device ide-cd: id=a is given twice; choose another"),
    (
      "-device ide-cd,id=1a", "-device: id=1a is not a name: write a letter, then letters, digits, '-', '.' or '_'"
    ),
    (
      "-drive file=/a,id=a/b", "-drive: id=a/b is not a name: write a letter, then letters, digits, '-', '.' or '_'"
    ),
    (
      "-device ide-cd,warp=9", "-device ide-cd: there is no property 'warp' (warp=9); leave it out"
    ),
    (
      "-drive if=none,id=d,file=/a -device virtio-blk-pci,drive=d,file=/b",
      "-device virtio-blk-pci: there is no property 'file' (file=/b); leave it out"
    ),
    (
      "-object iothread,id=a -object iothread,id=a",
      "-object iothread,id=a: id=a is given twice; choose another"
    ), ("-object iothread,id=a,warp=9", "-object: unknown key 'warp' (warp=9)"),
    ("-chardev socket,id=c,path=", "-chardev socket,id=c,path=: path= names no socket; write path=FILE"),
    ("-qtest stdio -qmp stdio", "-qmp stdio: -qtest is there already; write another address for one of them"),
    ("-serial stdio -qtest stdio", "-serial stdio: -qtest is there already; write another address for one of them"),
    ("-action shutdown=sleep", "-action shutdown=sleep is unknown; choose one of poweroff, pause"),
    ("-action reboot=perhaps", "-action reboot=perhaps is unknown; choose one of reset, shutdown"),
    ("-action panics=none", "-action panics=none: unknown key 'panics'; keys are panic, reboot, shutdown, watchdog"),
    ("-blockdev driver=file,filename=/a", "-blockdev driver=file,filename=/a: has no node-name="),
    (
      "-blockdev driver=raw,node-name=n,file=below", "-blockdev: file=below names no node that there is"
    ),
    (
      "-blockdev driver=raw,node-name=n,file=n", "-blockdev: file=n names no node that there is"
    ),
    ("-blockdev {broken", "-blockdev: '{broken' is not a JSON object"),
    ("-object rng,id=x", "-object rng,id=x: there are objects of the types iothread and monitor-qmp only"),
    ("-object monitor-qmp,id=q,chardev=c", "-object monitor-qmp,id=q,chardev=c: names no chardev that there is"),
    ("-object monitor-qmp,chardev=c", "-object monitor-qmp,chardev=c: has no id=NAME"),
    ("-run-with chroot=/srv", "-run-with chroot=/srv: is not offered; start the process as it is to run"),
    ("-run-with exit-with-parent=maybe", "-run-with: exit-with-parent=maybe is neither on nor off"),
    ("-object iothread", "-object iothread: has no id=NAME"),
    ("-global warp", "-global warp: write DRIVER.PROPERTY=VALUE"),
    ("-mon chardev=c", "-mon chardev=c: names no chardev that there is"),
    (
      "-chardev null,id=c -mon chardev=c",
      "-mon chardev=c: the monitor speaks QMP only; write mode=control"
    ),
    ("-monitor stdio", "-monitor stdio: the monitor speaks QMP only; write -qmp stdio, or -monitor none"),
    ("-incoming unix:/run/i", "-incoming unix:/run/i: live migration is not offered"),
    ("-netdev user,id=n", "-netdev user,id=n: there is no network; write -nic none"),
    ("-display gtk", "-display gtk: there is no window; write -display none"),
    (
      "-drive if=none,id=d,file=/a -device virtio-blk-pci,drive=d,bus=b1",
      "-device virtio-blk-pci: bus=b1: there is no such bus; leave bus= out"
    ),
    (
      "-drive if=none,id=d,file=/a -device virtio-blk-device,drive=d,bus=pci.0",
      "-device virtio-blk-device: bus=pci.0: there is no such bus; leave bus= out"
    ),
    ("-append x", "-append: goes with -kernel only"),
    ("-initrd /i", "-initrd /i: guests are started by their PVH note alone; leave -initrd out"),
    ("-serial null -serial stdio", "-serial stdio: there is one serial port"),
  ])
  func mistakeIsNamedInOneLine(_ row: (line: String, text: String)) { #expect(refusal(row.line) == row.text) }

  /// Mistakes that our own `--drive` finds are told by the name that was written.
  @Test(arguments: [
    "-drive file=/a,warp=9", "-drive file=/a,cache=warm", "-drive file=/a,werror=panic",
    "-drive file=/a,readonly=maybe",
    "-drive file=/a,throttling.bps-write=-1", "-drive if=virtio,id=d", "-drive file=/a,file.read-zeroes=on",
    "-drive file=blkdebug:/x,if=ide",
  ])
  func mistakeInADriveNamesTheOptionThatWasWritten(_ line: String) throws {
    let text = try #require(refusal(line))
    #expect(text.hasPrefix("-drive"), "\(text)")
    #expect(!text.contains("\n"))
  }

  @Test(arguments: [
    "virtio-blk-pci,addr=40", "virtio-blk-pci,addr=4.8", "virtio-blk-pci,addr=x", "virtio-blk-pci,num-queues=0",
    "virtio-blk-pci,queue-size=100", "virtio-blk-pci,iothread=t", "virtio-blk-pci,packed=on",
    "virtio-blk-pci,disable-modern=on,disable-legacy=on", "virtio-blk-pci,logical_block_size=4096",
    "virtio-blk-pci,warp=9",
    "ide-hd,warp=9", "ide-hd,ver=toolongversion", "ide-hd,serial=123456789012345678901", "ide-hd,bus=ide",
    "ide-hd,write-cache=perhaps", "warp-drive",
  ])
  func mistakeInADeviceIsOneLine(_ device: String) throws {
    let text = try #require(refusal("-drive if=none,id=d,file=/a -device \(device),drive=d"))
    #expect(text.hasPrefix("-d"), "\(text)")
    #expect(!text.contains("\n"))
  }

  @Test func sevenDrivesDoNotFitOnSixPorts() throws {
    let line = (0..<7).map { "-drive if=none,id=d\($0),file=/\($0) -device ide-hd,drive=d\($0)" }.joined(separator: " ")
    #expect(refusal(line) == "-device ide-hd: every port of the controller is taken")
  }
}
