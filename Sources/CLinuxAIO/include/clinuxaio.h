// SPDX-License-Identifier: Apache-2.0
// Linux native AIO (io_setup(2) and its relatives) without a library: the five system calls, and the completion ring that
// the kernel keeps in the process's memory.
// Every function that can fail returns a negative errno value in one step, so that nothing can change errno in between.
#ifndef SPINDLE_CLINUXAIO_H
#define SPINDLE_CLINUXAIO_H

#include <linux/aio_abi.h>
#include <stdint.h>
#include <time.h>

/// Makes a context for `count` operations in flight; stores its handle in `out`, which must hold 0 before.
int clinuxaio_setup(unsigned int count, aio_context_t *out);
/// Ends a context: waits until everything in it has completed, and takes its ring out of memory.
int clinuxaio_destroy(aio_context_t context);
/// Hands `count` control blocks to the kernel; how many it took, or a negative errno value where it took none.
int clinuxaio_submit(aio_context_t context, long count, struct iocb **blocks);
/// Takes up to `count_max` events without waiting; how many there were, or a negative errno value.
int clinuxaio_getevents(aio_context_t context, long count_max, struct io_event *events);
/// Asks that an operation in flight end; its event comes through the ring in any case.
int clinuxaio_cancel(aio_context_t context, struct iocb *block);

/// The header of the completion ring, at the address that is the context's handle; `nr` events follow it.
struct clinuxaio_ring {
  uint32_t id;
  uint32_t nr;
  uint32_t head;
  uint32_t tail;
  uint32_t magic;
  uint32_t compat_features;
  uint32_t incompat_features;
  uint32_t header_length;
};

static const uint32_t clinuxaio_ring_magic = 0xa10a10a1;

/// Where the next event is taken; the process's own index.
static inline uint32_t clinuxaio_ring_head(const struct clinuxaio_ring *ring) {
  return __atomic_load_n(&ring->head, __ATOMIC_RELAXED);
}
/// Where the kernel puts the next event. Acquire: pairs with the kernel's barrier between an event and the tail.
static inline uint32_t clinuxaio_ring_tail(const struct clinuxaio_ring *ring) {
  return __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
}
/// Gives back all events before `head`. Release: pairs with the kernel's read of the head before it reuses their places.
static inline void clinuxaio_ring_set_head(struct clinuxaio_ring *ring, uint32_t head) {
  __atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
}

#endif
