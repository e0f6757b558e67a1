// SPDX-License-Identifier: Apache-2.0

/// A colour of the sRGB space with an opacity.
///
/// The named hues are those of Okabe and Ito, "Color Universal Design" (2008): people who confuse red and green can tell
/// them apart, also in print.
public struct Color: Hashable, Sendable {
  /// The red part, 0 to 255.
  public var red: UInt8
  /// The green part, 0 to 255.
  public var green: UInt8
  /// The blue part, 0 to 255.
  public var blue: UInt8
  /// 0 is invisible, 255 hides what is below.
  public var opacity: UInt8

  /// The colour with these parts, opaque unless told otherwise.
  public init(red: UInt8, green: UInt8, blue: UInt8, opacity: UInt8 = 255) {
    self.red = red
    self.green = green
    self.blue = blue
    self.opacity = opacity
  }

  /// Black.
  public static let black = Color(red: 0, green: 0, blue: 0)
  /// White.
  public static let white = Color(red: 255, green: 255, blue: 255)
  /// Orange.
  public static let orange = Color(red: 230, green: 159, blue: 0)
  /// Light blue.
  public static let skyBlue = Color(red: 86, green: 180, blue: 233)
  /// Green with some blue in it.
  public static let green = Color(red: 0, green: 158, blue: 115)
  /// Yellow; too pale for lines and text on white.
  public static let yellow = Color(red: 240, green: 228, blue: 66)
  /// Dark blue.
  public static let blue = Color(red: 0, green: 114, blue: 178)
  /// Orange red; `StallTimeline` uses it for what goes wrong and for nothing else.
  public static let vermilion = Color(red: 213, green: 94, blue: 0)
  /// Purple, reddish.
  public static let purple = Color(red: 204, green: 121, blue: 167)
  /// A grey of equal parts: 0 is black, 255 white.
  public static func gray(_ level: UInt8) -> Color { Color(red: level, green: level, blue: level) }

  /// The same hue, as see-through as `opacity` says: 0 is invisible, 255 opaque.
  public func with(opacity: UInt8) -> Color {
    Color(red: red, green: green, blue: blue, opacity: opacity)
  }

  /// Black or white, whichever is read better on this colour.
  public var legibleInk: Color {
    // The weights are those of ITU-R BT.601 for luma, in thousandths.
    let luma = (299 * Int(red) + 587 * Int(green) + 114 * Int(blue)) / 1000
    return luma > 125 ? .black : .white
  }
}
