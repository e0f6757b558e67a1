// SPDX-License-Identifier: Apache-2.0
#include "cpng.h"

#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(cpng_message_bytes == sizeof(((png_image *)0)->message), "libpng's messages fit");

static png_image rgb_image(uint32_t width, uint32_t height) {
  return (png_image){.version = PNG_IMAGE_VERSION, .width = width, .height = height, .format = PNG_FORMAT_RGB};
}

/// Ends a call of the png_image interface: takes its message and frees what it still holds.
static int finish(png_image *image, int ok, char *message) {
  if (!ok) memcpy(message, image->message, cpng_message_bytes);
  png_image_free(image);
  return ok != 0;
}

size_t cpng_bound(uint32_t width, uint32_t height) {
  size_t row, all, slack;
  if (__builtin_mul_overflow((size_t)width, (size_t)3, &row) || __builtin_mul_overflow(row, (size_t)height, &all) ||
      __builtin_add_overflow(all, all / 8 + (size_t)height * 8 + 65536, &slack))
    return 0;
  return slack;
}

int cpng_encode(const uint8_t *rgb, uint32_t width, uint32_t height, uint8_t *png, size_t *size, char *message) {
  png_image image = rgb_image(width, height);
  png_alloc_size_t bytes = *size;
  int ok = png_image_write_to_memory(&image, png, &bytes, 0, rgb, 0, NULL);
  if (ok) *size = bytes;
  return finish(&image, ok, message);
}

int cpng_write_file(const char *path, const uint8_t *rgb, uint32_t width, uint32_t height, char *message) {
  // Not png_image_write_to_file: where that fails it removes whatever the path names, be it a device.
  FILE *file = fopen(path, "wb");
  if (!file) {
    snprintf(message, cpng_message_bytes, "%s", strerror(errno));
    return 0;
  }
  struct stat status;
  int removable = fstat(fileno(file), &status) == 0 && S_ISREG(status.st_mode);
  png_image image = rgb_image(width, height);
  int ok = finish(&image, png_image_write_to_stdio(&image, file, 0, rgb, 0, NULL), message);
  // What is buffered is written only now, and a full disk may show only now.
  if (fclose(file) != 0 && ok) {
    snprintf(message, cpng_message_bytes, "%s", strerror(errno));
    ok = 0;
  }
  if (!ok && removable) unlink(path);
  return ok;
}

int cpng_size(const uint8_t *png, size_t size, uint32_t *width, uint32_t *height, char *message) {
  png_image image = {.version = PNG_IMAGE_VERSION};
  int ok = png_image_begin_read_from_memory(&image, png, size);
  if (ok) {
    *width = image.width;
    *height = image.height;
  }
  return finish(&image, ok, message);
}

int cpng_decode(const uint8_t *png, size_t size, uint8_t *rgb, size_t rgb_bytes, char *message) {
  png_image image = {.version = PNG_IMAGE_VERSION};
  int ok = png_image_begin_read_from_memory(&image, png, size);
  if (!ok) return finish(&image, ok, message);
  image.format = PNG_FORMAT_RGB;
  if (PNG_IMAGE_SIZE(image) > rgb_bytes) {
    strcpy(image.message, "no room for the decoded picture");
    return finish(&image, 0, message);
  }
  return finish(&image, png_image_finish_read(&image, NULL, rgb, 0, NULL), message);
}
