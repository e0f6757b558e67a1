// SPDX-License-Identifier: Apache-2.0
// libpng for Swift: whole pictures of 8-bit RGB, rows without padding. libpng reports errors by longjmp, which must not
// cross Swift frames; its png_image interface, which these functions use, catches them before it returns.
// Every function returns 1, or 0 with a text in `message`.
#ifndef SPINDLE_CPNG_H
#define SPINDLE_CPNG_H

#include <stddef.h>
#include <stdint.h>

/// Bytes of a message, with the zero at its end.
enum { cpng_message_bytes = 64 };

/// Bytes that are enough for any picture of this size as PNG; 0 where it would not fit a size_t.
size_t cpng_bound(uint32_t width, uint32_t height);
/// Encodes a picture. `size` is the space in `png` before, and the bytes used after.
int cpng_encode(const uint8_t *rgb, uint32_t width, uint32_t height, uint8_t *png, size_t *size, char *message);
/// Encodes a picture into a file. Where that fails, a regular file is removed again; a device or a pipe stays.
int cpng_write_file(const char *path, const uint8_t *rgb, uint32_t width, uint32_t height, char *message);
/// The size of an encoded picture, in pixels.
int cpng_size(const uint8_t *png, size_t size, uint32_t *width, uint32_t *height, char *message);
/// Decodes a picture into width * height * 3 bytes; `rgb_bytes` is the space there.
int cpng_decode(const uint8_t *png, size_t size, uint8_t *rgb, size_t rgb_bytes, char *message);

#endif
