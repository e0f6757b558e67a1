// SPDX-License-Identifier: Apache-2.0
// FreeType for Swift. The flags of pkg-config's freetype2 lead to the headers. <features.h> must come first, as in CURing.
// The wrappers stand for flags that FreeType builds with macros, which Swift does not see.
#ifndef SPINDLE_CFREETYPE_H
#define SPINDLE_CFREETYPE_H

#include <features.h>
#include <ft2build.h>
#include FT_FREETYPE_H
#include FT_ADVANCES_H
#include FT_OUTLINE_H

/// The advance of a glyph in font units, whatever size is set.
static inline FT_Error cfreetype_advance(FT_Face face, FT_UInt glyph, FT_Fixed *units) {
  return FT_Get_Advance(face, glyph, FT_LOAD_NO_SCALE, units);
}

/// The kerning between two glyphs in font units; 0 where the font has none.
static inline FT_Pos cfreetype_kerning(FT_Face face, FT_UInt left, FT_UInt right) {
  FT_Vector units = {0, 0};
  if (!FT_HAS_KERNING(face) || FT_Get_Kerning(face, left, right, FT_KERNING_UNSCALED, &units)) return 0;
  return units.x;
}

/// Renders a glyph into the face's slot as 8-bit coverage, `shift` 64ths of a pixel to the right. Hinted vertically only,
/// so that widths stay those of the design.
static inline FT_Error cfreetype_render(FT_Face face, FT_UInt glyph, FT_Pos shift) {
  FT_Error error = FT_Load_Glyph(face, glyph, FT_LOAD_NO_BITMAP | FT_LOAD_TARGET_LIGHT);
  if (error) return error;
  if (face->glyph->format != FT_GLYPH_FORMAT_OUTLINE) return FT_Err_Invalid_Glyph_Format;
  FT_Outline_Translate(&face->glyph->outline, shift, 0);
  return FT_Render_Glyph(face->glyph, FT_RENDER_MODE_NORMAL);
}

#endif
