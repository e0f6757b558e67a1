// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "ctracing.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

// As long as the kernel's names of threads, with the final zero.
enum { name_bytes = 16 };

struct ctracing_ring {
  struct ctracing_ring *next;
  struct ctracing_event *events;
  // Events that there is room for; 0 where the host had no memory, so that all are dropped.
  uint64_t capacity;
  // The trace that the events belong to. Stored with release when the rest is set; pairs with ctracing_is_current.
  uint64_t session;
  // Stored with release after the event; pairs with ctracing_count.
  uint64_t count;
  uint64_t dropped;
  int thread;
  // No thread appends any more. Guarded by the registry's lock.
  int has_ended;
  char name[name_bytes];
};

uint32_t ctracing_enabled;

// Guards the list of rings, and a thread's change from one trace to the next. Not taken by other events.
static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static struct ctracing_ring *rings;
static uint64_t session;
static uint64_t capacity;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

static _Thread_local struct ctracing_ring *own;
static _Thread_local int is_ending;

static void thread_ends(void *ring) {
  pthread_mutex_lock(&registry);
  ((struct ctracing_ring *)ring)->has_ended = 1;
  pthread_mutex_unlock(&registry);
  own = NULL;
  is_ending = 1;
}

static void make_key(void) { pthread_key_create(&key, thread_ends); }

// Makes a ring for the calling thread, in the registry. With the lock held. Pages that are not used are never touched.
static struct ctracing_ring *make_ring(void) {
  struct ctracing_ring *ring = calloc(1, sizeof *ring);
  if (!ring) return NULL;
  ring->events = calloc(capacity, sizeof *ring->events);
  ring->capacity = ring->events ? capacity : 0;
  ring->next = rings;
  rings = ring;
  pthread_setspecific(key, ring);
  return ring;
}

// The calling thread's first event of a trace.
static struct ctracing_ring *join_session(void) {
  if (is_ending) return NULL;
  pthread_once(&key_once, make_key);
  pthread_mutex_lock(&registry);
  struct ctracing_ring *ring = own;
  if (ring && ring->capacity != capacity) {
    ring->has_ended = 1;
    ring = NULL;
  }
  if (!ring) ring = make_ring();
  own = ring;
  if (ring) {
    ring->thread = gettid();
    pthread_getname_np(pthread_self(), ring->name, sizeof ring->name);
    __atomic_store_n(&ring->count, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&ring->dropped, 0, __ATOMIC_RELAXED);
    // Release: pairs with the acquiring load in ctracing_is_current.
    __atomic_store_n(&ring->session, session, __ATOMIC_RELEASE);
  }
  pthread_mutex_unlock(&registry);
  return ring;
}

__attribute__((preserve_most, cold, noinline)) void ctracing_record(uint32_t point, uint64_t request, uint32_t value) {
  struct ctracing_ring *ring = own;
  // Relaxed: a thread that still sees the trace before appends to a ring that nobody reads for the new one.
  if (!ring || ring->session != __atomic_load_n(&session, __ATOMIC_RELAXED)) ring = join_session();
  if (!ring) return;
  uint64_t count = ring->count;
  if (count == ring->capacity) {
    __atomic_store_n(&ring->dropped, ring->dropped + 1, __ATOMIC_RELAXED);
    return;
  }
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  struct ctracing_event *event = &ring->events[count];
  event->time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  event->request = request;
  event->value = value;
  event->point = point;
  // Release: pairs with the acquiring load in ctracing_count.
  __atomic_store_n(&ring->count, count + 1, __ATOMIC_RELEASE);
}

void ctracing_start(uint64_t events_per_thread) {
  pthread_mutex_lock(&registry);
  struct ctracing_ring **link = &rings;
  while (*link) {
    struct ctracing_ring *ring = *link;
    if (ring->has_ended) {
      *link = ring->next;
      free(ring->events);
      free(ring);
    } else {
      link = &ring->next;
    }
  }
  capacity = events_per_thread;
  __atomic_store_n(&session, session + 1, __ATOMIC_RELAXED);
  pthread_mutex_unlock(&registry);
  __atomic_store_n(&ctracing_enabled, 1, __ATOMIC_RELAXED);
}

void ctracing_stop(void) { __atomic_store_n(&ctracing_enabled, 0, __ATOMIC_RELAXED); }

const struct ctracing_ring *ctracing_first_ring(void) {
  pthread_mutex_lock(&registry);
  struct ctracing_ring *first = rings;
  pthread_mutex_unlock(&registry);
  return first;
}

const struct ctracing_ring *ctracing_next_ring(const struct ctracing_ring *ring) { return ring->next; }

int ctracing_is_current(const struct ctracing_ring *ring) {
  // Acquire: pairs with the releasing store in join_session.
  return __atomic_load_n(&ring->session, __ATOMIC_ACQUIRE) == session;
}

uint64_t ctracing_count(const struct ctracing_ring *ring) {
  // Acquire: pairs with the releasing store in ctracing_record.
  return __atomic_load_n(&ring->count, __ATOMIC_ACQUIRE);
}

const struct ctracing_event *ctracing_events(const struct ctracing_ring *ring) { return ring->events; }
uint64_t ctracing_dropped(const struct ctracing_ring *ring) { return __atomic_load_n(&ring->dropped, __ATOMIC_RELAXED); }
int ctracing_thread(const struct ctracing_ring *ring) { return ring->thread; }
const char *ctracing_name(const struct ctracing_ring *ring) { return ring->name; }
