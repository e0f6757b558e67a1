// SPDX-License-Identifier: Apache-2.0
// Trace points: a look at one word where nobody traces, and an event in the calling thread's own ring where somebody does.
//
// Time is CLOCK_MONOTONIC in nanoseconds, read through the vDSO: some 25 ns a reading, the same clock on all processors
// and the one that the loops' timers use, so an event needs no conversion and no calibration. The time-stamp counter
// would save some 15 ns an event, and would have to be calibrated against this clock.
#ifndef SPINDLE_CTRACING_H
#define SPINDLE_CTRACING_H

#include <features.h>
#include <stdint.h>

/// One event.
struct ctracing_event {
  uint64_t time_ns;
  uint64_t request;
  uint32_t value;
  uint32_t point;
};

/// A thread's ring. Its thread appends, the functions below may read at the same time; a full one takes no more.
struct ctracing_ring;

/// 1 while events are recorded. Hidden, so that a look at it is one instruction.
extern uint32_t ctracing_enabled __attribute__((visibility("hidden")));

/// Appends an event to the calling thread's ring; keeps the registers, because its callers seldom come here. The
/// thread's first event since `ctracing_start` makes its ring, or takes the one that it has; others allocate nothing
/// and take no lock.
__attribute__((preserve_most)) void ctracing_record(uint32_t point, uint64_t request, uint32_t value);

// A relaxed load: whoever traces a moment too early or too late loses an event at the trace's ends, no more.
static inline uint32_t ctracing_is_enabled(void) { return __atomic_load_n(&ctracing_enabled, __ATOMIC_RELAXED); }

// Called through this, so that Swift need not know of the calling convention.
static inline void ctracing_append(uint32_t point, uint64_t request, uint32_t value) {
  ctracing_record(point, request, value);
}

// The rest is for one thread at a time.

/// Begins a trace with rings of `events_per_thread`; events of an earlier one are gone, and rings of ended threads are freed.
void ctracing_start(uint64_t events_per_thread);
/// Records nothing any more; what was recorded stays.
void ctracing_stop(void);

/// The rings, newest first; NULL where there is none. They stay until the next `ctracing_start`.
const struct ctracing_ring *ctracing_first_ring(void);
const struct ctracing_ring *ctracing_next_ring(const struct ctracing_ring *ring);
/// Whether the thread has recorded something, if only a drop, since the last `ctracing_start`. The others are for rings for which
/// this is so.
int ctracing_is_current(const struct ctracing_ring *ring);
/// Events that may be read, from the first one on.
uint64_t ctracing_count(const struct ctracing_ring *ring);
const struct ctracing_event *ctracing_events(const struct ctracing_ring *ring);
/// Events that came when the ring was full.
uint64_t ctracing_dropped(const struct ctracing_ring *ring);
/// The thread's number and name when it recorded its first event.
int ctracing_thread(const struct ctracing_ring *ring);
const char *ctracing_name(const struct ctracing_ring *ring);

#endif
