// SPDX-License-Identifier: Apache-2.0
// liburing for Swift. <features.h> must come first: liburing.h sets feature macros that otherwise change the C library's
// types under Swift's Glibc module, and the first build of a clean tree fails.
#ifndef SPINDLE_CURING_H
#define SPINDLE_CURING_H

#include <features.h>
#include <liburing.h>

/// Makes every filled entry visible to the kernel, without a system call; how many it has not taken.
unsigned curing_flush(struct io_uring *ring);
/// One system call: hands over `to_submit` visible entries and waits for `wait_for` completions, at most `timeout_ns`
/// (UINT64_MAX: without end). How many entries were taken, or a negative errno value where none was.
int curing_enter(struct io_uring *ring, unsigned to_submit, unsigned wait_for, uint64_t timeout_ns);

/// Whether completions can only be had by a system call: they have overflowed, or wait for their task work.
static inline int curing_needs_enter(const struct io_uring *ring) {
  return (IO_URING_READ_ONCE(*ring->sq.kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) != 0;
}

/// Starts a ring made with IORING_SETUP_R_DISABLED; the calling thread is its issuer from now on. (liburing 2.3 does not
/// export its own function for this.)
static inline int curing_enable(struct io_uring *ring) {
  return io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

#endif
