// SPDX-License-Identifier: Apache-2.0
// A user's mistake is one line that names the option, the value and the way out.
import Block
import Testing

@testable import Assembly

@Suite struct OptionTests {
  private func error(of text: String) -> String? {
    do throws(UsageError) {
      _ = try DriveConfiguration(parsing: text, index: 0)
      return nil
    } catch { return error.description }
  }

  @Test func driveTakesEveryKeyItLists() throws {
    let drive = try DriveConfiguration(
      parsing:
        "file=/a,,b.img,if=virtio,id=x,format=raw,cache=none,readonly=on,serial=S1,aio=auto,queues=2,queue-size=64",
      index: 0)
    #expect(drive.source == .file(path: "/a,b.img"))
    #expect(drive.id == "x")
    #expect(drive.cache == .none)
    #expect(drive.isReadOnly)
    #expect(drive.serial == "S1")
    #expect(drive.queueCount == 2)
    #expect(drive.queueEntries == 64)
  }

  @Test func drivesWithoutIdAreNumbered() throws {
    #expect(try DriveConfiguration(parsing: "file=a", index: 3).id == "drive3")
  }

  @Test func nullDriveHasASize() throws {
    #expect(try DriveConfiguration(parsing: "driver=null,size=2G", index: 0).source == .null(byteCount: 2 << 30))
    #expect(try DriveConfiguration(parsing: "driver=null", index: 0).source == .null(byteCount: 1 << 30))
  }

  @Test(arguments: [
    ("file", "not of the form key=value"), ("file=a,colour=red", "unknown key 'colour'; keys are file"),
    ("file=a,cache=fast", "choose one of"), ("file=a,readonly=maybe", "neither on nor off"),
    ("file=a,queues=0", "from 1 to 64"), ("file=a,queue-size=100", "power of two"), ("if=virtio", "write file=PATH"),
    ("file=a,serial=123456789012345678901", "longer than 20"), ("file=a,file=b", "given twice"),
    ("file=a,if=scsi", "choose one of virtio, ahci, ide"), ("driver=null,file=a", "takes no file"),
    ("file=a,size=1G", "driver=null"),
    ("driver=null,size=1X", "not a size"), ("file=a,aio=fast", "choose one of auto"), ("", "not of the form"),
  ])
  func mistakeIsNamed(text: String, part: String) throws {
    let line = try #require(error(of: text))
    #expect(line.contains(part))
    #expect(!line.contains("\n"))
    #expect(line.hasPrefix("--drive"))
  }

  @Test(
    arguments: [("1", 1), ("4K", 4096), ("256M", 256 << 20), ("2g", 2 << 30), ("1T", 1 << 40)] as [(String, UInt64)])
  func sizesAreRead(text: String, bytes: UInt64) throws {
    #expect(try ByteSize.parse(text, option: "--memory") == bytes)
  }

  @Test(arguments: ["", "M", "-1", "1.5G", "99999999999T", "0x10"])
  func badSizesAreRefused(text: String) {
    #expect(throws: UsageError.self) { try ByteSize.parse(text, option: "--memory") }
  }

  @Test func bareNumberCountsTheDefaultUnit() throws {
    #expect(try ByteSize.parse("64", option: "--memory", defaultUnit: 1 << 20) == 64 << 20)
  }
}
