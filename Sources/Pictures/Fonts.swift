// SPDX-License-Identifier: Apache-2.0
import CFreeType
import Glibc

/// The two weights text is drawn in.
public enum FontWeight: Sendable {
  /// DejaVu Sans.
  case regular
  /// DejaVu Sans Bold.
  case bold
}

/// The fonts of a picture, opened once and shared by the canvases of one thread. Not thread-safe.
public final class Fonts {
  /// Where DejaVu Sans is looked for, in this order: the folders of Debian, Fedora and Arch.
  public static let usualFolders = [
    "/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/dejavu-sans-fonts", "/usr/share/fonts/TTF",
  ]

  let regular: FontFace
  let bold: FontFace
  private let library: FontLibrary

  /// Opens both weights from the first folder that has them. Throws `.missingFont` where no folder has one of them,
  /// `.unusableFont` where FreeType cannot read it.
  public init(folders: [String] = Fonts.usualFolders) throws(PictureError) {
    let library = try FontLibrary()
    regular = try FontFace(file: "DejaVuSans.ttf", folders: folders, library: library)
    bold = try FontFace(file: "DejaVuSans-Bold.ttf", folders: folders, library: library)
    self.library = library
  }

  func face(_ weight: FontWeight) -> FontFace { weight == .bold ? bold : regular }
}

/// FreeType itself. Faces hold it, so that it ends after them.
final class FontLibrary {
  let pointer: FT_Library

  init() throws(PictureError) {
    var made: FT_Library?
    guard FT_Init_FreeType(&made) == 0, let made else { throw .memory(bytes: 0) }
    pointer = made
  }

  deinit { FT_Done_FreeType(pointer) }
}

/// One font file.
final class FontFace {
  /// Text is measured and drawn up to this many characters.
  static let maximumCharacters = 2048
  /// The smallest and largest size, in pixels of the file.
  static let pixelSizes = 1...1024

  let face: FT_Face
  private let library: FontLibrary
  private let unitsPerPixelSize: Double
  private var glyphs: [Unicode.Scalar: Glyph] = [:]

  struct Glyph {
    var index: UInt32
    /// In units of the font.
    var advance: Int
  }

  /// A glyph of a run and where its origin is, in units of the font from the start of the run.
  struct PlacedGlyph {
    var index: UInt32
    var position: Int
  }

  init(file: String, folders: [String], library: FontLibrary) throws(PictureError) {
    guard let path = folders.map({ $0 + "/" + file }).first(where: { access($0, R_OK) == 0 }) else {
      throw .missingFont(file: file)
    }
    var made: FT_Face?
    let code = FT_New_Face(library.pointer, path, 0, &made)
    guard code == 0, let made else { throw .unusableFont(path: path, code: code) }
    guard made.pointee.units_per_EM > 0 else {
      FT_Done_Face(made)
      throw .unusableFont(path: path, code: 0)
    }
    face = made
    unitsPerPixelSize = Double(made.pointee.units_per_EM)
    self.library = library
  }

  deinit { FT_Done_Face(face) }

  /// The glyphs of a text from left to right with kerning, and the width of all of them in units of the font. Control
  /// characters count as spaces.
  func run(_ text: String) -> (glyphs: [PlacedGlyph], width: Int) {
    var placed: [PlacedGlyph] = []
    var pen = 0
    for scalar in text.unicodeScalars.prefix(FontFace.maximumCharacters) {
      let glyph = glyph(scalar)
      if let last = placed.last { pen += Int(cfreetype_kerning(face, last.index, glyph.index)) }
      placed.append(PlacedGlyph(index: glyph.index, position: pen))
      pen += glyph.advance
    }
    return (placed, max(pen, 0))
  }

  private func glyph(_ scalar: Unicode.Scalar) -> Glyph {
    if let known = glyphs[scalar] { return known }
    let visible = scalar.value < 0x20 || scalar.value == 0x7f ? " " : scalar
    let index = FT_Get_Char_Index(face, FT_ULong(visible.value))
    var advance: FT_Fixed = 0
    _ = cfreetype_advance(face, index, &advance)
    let glyph = Glyph(index: index, advance: Int(advance))
    glyphs[scalar] = glyph
    return glyph
  }

  /// Font units as pixels, for text of `size` pixels.
  func pixels(_ units: Int, size: Double) -> Double { Double(units) * size / unitsPerPixelSize }

  /// How far text of `size` pixels reaches above its baseline, for every character of the font's usual ones.
  func ascent(size: Double) -> Double { pixels(Int(face.pointee.ascender), size: size) }

  /// How far text of `size` pixels reaches below its baseline.
  func descent(size: Double) -> Double { pixels(-Int(face.pointee.descender), size: size) }
}
