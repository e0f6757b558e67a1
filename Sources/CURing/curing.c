// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "curing.h"

#include <errno.h>
#include <signal.h>

unsigned curing_flush(struct io_uring *ring) {
  struct io_uring_sq *sq = &ring->sq;
  unsigned tail = *sq->ktail;
  for (; sq->sqe_head != sq->sqe_tail; sq->sqe_head++) sq->array[tail++ & sq->ring_mask] = sq->sqe_head & sq->ring_mask;
  // Release: the kernel sees the entries before the new tail.
  io_uring_smp_store_release(sq->ktail, tail);
  return tail - io_uring_smp_load_acquire(sq->khead);
}

int curing_enter(struct io_uring *ring, unsigned to_submit, unsigned wait_for, uint64_t timeout_ns) {
  // Task work that is deferred to us runs only if we ask for events.
  unsigned flags = wait_for > 0 || curing_needs_enter(ring) ? IORING_ENTER_GETEVENTS : 0;
  if (wait_for == 0 || timeout_ns == UINT64_MAX) return io_uring_enter(ring->ring_fd, to_submit, wait_for, flags, NULL);
  struct __kernel_timespec time = {
      .tv_sec = (long long)(timeout_ns / 1000000000u), .tv_nsec = (long long)(timeout_ns % 1000000000u)};
  struct io_uring_getevents_arg argument = {.sigmask_sz = _NSIG / 8, .ts = (uint64_t)(uintptr_t)&time};
  flags |= IORING_ENTER_EXT_ARG;
  return io_uring_enter2(ring->ring_fd, to_submit, wait_for, flags, (sigset_t *)&argument, sizeof argument);
}
