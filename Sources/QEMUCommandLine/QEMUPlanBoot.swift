// SPDX-License-Identifier: Apache-2.0
// What a firmware is told: in what order to boot, how long to wait, and who the machine is.
import Assembly
import FoundationEssentials

extension QEMUPlan {
  /// What `-boot` asks of the firmware. Nothing here boots by it; programs look whether it arrives.
  public struct Boot: Equatable, Sendable {
    /// Letters of the devices that are tried, in order: a floppy disk, c hard disk, d CD-ROM, n network.
    public var order = "cad"
    /// The same for the first start alone; nil for `order`.
    public var once: String?
    /// The signature of a floppy disk's boot sector is checked.
    public var checksFloppy = true
    /// The firmware shows a menu.
    public var hasMenu = false
    /// Milliseconds that a splash picture shows; nil for the firmware's own choice.
    public var splashMs: Int?
    /// Milliseconds after which a machine that finds nothing to boot begins anew; -1 for never.
    public var retryMs = -1

    /// Devices that a PC's firmware tries.
    private static let devicesMax = 3
    private static let codes: [Character: UInt8] = ["a": 1, "b": 1, "c": 2, "d": 3, "n": 4]

    /// What QEMU asks for without the option.
    public init() {}

    /// The two bytes of the clock's memory in which a PC's firmware looks: at 0x38 the third device and whether floppy disks
    /// go unchecked, at 0x3d the second and the first.
    public func codes(atFirstStart: Bool) -> (third: UInt8, others: UInt8) {
      let devices = (atFirstStart ? once ?? order : order).prefix(Self.devicesMax).map { Self.codes[$0] ?? 0 }
      let three = devices + [UInt8](repeating: 0, count: Self.devicesMax - devices.count)
      return (three[2] << 4 | (checksFloppy ? 0 : 1), three[1] << 4 | three[0])
    }

    static func check(_ order: String) throws(UsageError) -> String {
      guard order.allSatisfy({ codes[$0] != nil }), Set(order).count == order.count, order.count <= devicesMax else {
        throw UsageError("-boot order=\(order): a PC tries up to three of a, c, d and n, each once")
      }
      return order
    }
  }

  /// Most milliseconds that fit into the firmware's files.
  private static let waitMsMax = 0xffff

  mutating func readFirmware(_ words: OptionWords) throws(UsageError) {
    if let text = words.last("uuid") {
      guard let value = UUID(uuidString: text) else {
        throw UsageError("-uuid \(text): write 32 hexadecimal digits as 8-4-4-4-12")
      }
      uuid = withUnsafeBytes(of: value.uuid) { Array($0) }
    }
    if words.has("no-fd-bootchk") { boot.checksFloppy = false }
    // Keys of several options come together, and the last of each counts.
    for text in words.all("boot") {
      var list = try KeyValueList(text, option: "-boot", implied: "order")
      if let order = list.take("order") { boot.order = try Boot.check(order) }
      if let once = list.take("once") { boot.once = try Boot.check(once) }
      boot.hasMenu = try list.takeFlag("menu", default: boot.hasMenu)
      boot.splashMs = try list.takeNumber("splash-time", in: 0...Self.waitMsMax) ?? boot.splashMs
      boot.retryMs = try list.takeNumber("reboot-timeout", in: -1...Self.waitMsMax) ?? boot.retryMs
      list.ignore("strict")
      if let picture = list.take("splash") {
        throw UsageError("-boot splash=\(picture): there is no firmware that would show it")
      }
      try list.finish()
    }
  }
}
