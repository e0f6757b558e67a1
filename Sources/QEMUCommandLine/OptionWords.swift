// SPDX-License-Identifier: Apache-2.0
// QEMUCommandLine: understands QEMU's command line as far as test programs use it, and says in our own terms what machine
// they want. It opens nothing and starts nothing; what it does not know it refuses with one line.
import Assembly

/// The words of a command line, taken apart into options and their values.
struct OptionWords {
  /// An option as it was written, without its dashes, and its value.
  struct Option: Equatable {
    var name: String
    var value: String
  }

  private enum Kind {
    /// Takes the next word.
    case value
    /// Stands alone.
    case flag
  }

  /// What there is, under the name that is used from here on. Short and old names come last.
  private static let known: [String: (name: String, kind: Kind)] = {
    var table: [String: (String, Kind)] = [:]
    for name in [
      "machine", "accel", "cpu", "m", "smp", "drive", "blockdev", "device", "chardev", "mon", "qmp", "qmp-pretty",
      "monitor", "qtest", "qtest-log", "display", "audio", "audiodev", "vga", "kernel", "append", "serial", "parallel",
      "object", "global", "name", "uuid", "rtc", "boot", "bios", "net", "nic", "netdev", "trace", "D", "d", "pidfile",
      "incoming", "fw_cfg", "msg", "L", "hda", "hdb", "hdc", "hdd", "cdrom", "sandbox", "action", "watchdog-action",
      "overcommit", "run-with", "rtc", "usb", "compat", "initrd", "icount", "smbios", "acpitable", "loadvm",
    ] { table[name] = (name, .value) }
    for name in [
      "nodefaults", "nographic", "no-user-config", "no-reboot", "no-shutdown", "S", "daemonize", "enable-kvm",
      "no-acpi", "no-hpet", "no-fd-bootchk", "snapshot", "help", "version", "usb", "only-migratable",
    ] where table[name] == nil { table[name] = (name, .flag) }
    table["M"] = ("machine", .value)
    table["h"] = ("help", .flag)
    table["nodefconfig"] = ("no-user-config", .flag)
    table["usb"] = ("usb", .flag)
    return table
  }()

  /// In the order in which they were written.
  private(set) var options: [Option] = []

  /// Takes `words` apart; both `-name` and `--name` are taken.
  init(_ words: [String]) throws(UsageError) {
    var index = 0
    while index < words.count {
      let word = words[index]
      index += 1
      guard word.hasPrefix("-"), word.count > 1 else {
        // QEMU takes a word by itself for its first hard disk.
        options.append(Option(name: "hda", value: word))
        continue
      }
      let name = String(word.drop { $0 == "-" })
      guard let (canonical, kind) = Self.known[name] else {
        throw UsageError("\(word): unknown option; see --help for those that there are")
      }
      guard kind == .value else {
        options.append(Option(name: canonical, value: ""))
        continue
      }
      guard index < words.count else { throw UsageError("\(word): needs a value after it") }
      options.append(Option(name: canonical, value: words[index]))
      index += 1
    }
  }

  /// The last value of an option; nil where it was not given.
  func last(_ name: String) -> String? { options.last { $0.name == name }?.value }

  /// Every value of an option.
  func all(_ name: String) -> [String] { options.filter { $0.name == name }.map(\.value) }

  /// Whether an option was given.
  func has(_ name: String) -> Bool { options.contains { $0.name == name } }
}
