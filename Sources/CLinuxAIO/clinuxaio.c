// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "clinuxaio.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(struct clinuxaio_ring) == 32, "the kernel's header is 32 bytes");

static int or_errno(long result) { return result < 0 ? -errno : (int)result; }

int clinuxaio_setup(unsigned int count, aio_context_t *out) { return or_errno(syscall(SYS_io_setup, count, out)); }
int clinuxaio_destroy(aio_context_t context) { return or_errno(syscall(SYS_io_destroy, context)); }
int clinuxaio_submit(aio_context_t context, long count, struct iocb **blocks) {
  return or_errno(syscall(SYS_io_submit, context, count, blocks));
}
int clinuxaio_getevents(aio_context_t context, long count_max, struct io_event *events) {
  struct timespec none = {0, 0};
  return or_errno(syscall(SYS_io_getevents, context, 0L, count_max, events, &none));
}
int clinuxaio_cancel(aio_context_t context, struct iocb *block) {
  // Kernels of today do not write the event here; older ones want a place for it.
  struct io_event event;
  return or_errno(syscall(SYS_io_cancel, context, block, &event));
}
