// SPDX-License-Identifier: Apache-2.0
// Linux calls and constants that Swift's Glibc module hides behind _GNU_SOURCE, as plain functions.
// Every function that can fail returns a negative errno value in one step, so that nothing can change errno in between.
#ifndef SPINDLE_CLINUX_H
#define SPINDLE_CLINUX_H

#include "clinux_sockets.h"

#include <features.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

extern const int clinux_O_DIRECT;
/// A file without a name, in the directory that is opened.
extern const int clinux_O_TMPFILE;
extern const int clinux_FALLOC_FL_KEEP_SIZE;
extern const int clinux_FALLOC_FL_PUNCH_HOLE;
extern const int clinux_FALLOC_FL_ZERO_RANGE;
extern const int clinux_RWF_DSYNC;
extern const unsigned long clinux_BLKGETSIZE64;
extern const unsigned long clinux_BLKSSZGET;
extern const unsigned long clinux_BLKPBSZGET;
extern const unsigned long clinux_BLKDISCARD;
extern const unsigned long clinux_BLKZEROOUT;

int clinux_open(const char *path, int flags, int mode);
int clinux_close(int fd);
int clinux_ppoll(struct pollfd *fds, unsigned long count, const struct timespec *timeout, const sigset_t *mask);
int clinux_eventfd(unsigned int initial, int nonblocking);
ssize_t clinux_read(int fd, void *buffer, size_t count);
ssize_t clinux_write(int fd, const void *buffer, size_t count);
ssize_t clinux_pread(int fd, void *buffer, size_t count, off_t offset);
ssize_t clinux_pwrite(int fd, const void *buffer, size_t count, off_t offset);
/// What epoll says of a descriptor: poll(2)'s events, and the token that it was registered with.
typedef struct __attribute__((packed)) {
  uint32_t events;
  uint64_t token;
} clinux_epoll_event;
extern const int clinux_EPOLL_CTL_ADD;
extern const int clinux_EPOLL_CTL_MOD;
extern const int clinux_EPOLL_CTL_DEL;
int clinux_epoll_create(void);
int clinux_epoll_ctl(int epoll, int operation, int fd, uint32_t events, uint64_t token);
/// Waits at most `timeout_ns` (UINT64_MAX: without end); the number of events, or a negative errno value.
int clinux_epoll_wait(int epoll, clinux_epoll_event *events, int count, uint64_t timeout_ns);
ssize_t clinux_preadv2(int fd, const struct iovec *iovecs, int count, off_t offset, int flags);
ssize_t clinux_pwritev2(int fd, const struct iovec *iovecs, int count, off_t offset, int flags);
/// The file system's magic number (statfs), or a negative errno value.
long clinux_file_system(int fd);
unsigned clinux_major(unsigned long device);
unsigned clinux_minor(unsigned long device);
int clinux_memfd_create(const char *name);
int clinux_ftruncate(int fd, off_t length);
int clinux_fallocate(int fd, int mode, off_t offset, off_t length);
int clinux_fdatasync(int fd);
/// Maps `length` bytes; stores the address in `out` and returns 0, or a negative errno value.
int clinux_mmap(void **out, void *hint, size_t length, int prot, int flags, int fd, off_t offset);
int clinux_munmap(void *address, size_t length);
/// Makes a mapping longer or shorter; `*address` may change.
int clinux_mremap(void **address, size_t length, size_t new_length);
int clinux_madvise(void *address, size_t length, int advice);
int clinux_ioctl(int fd, unsigned long request, uintptr_t argument);
/// An ioctl that takes a range of bytes: BLKDISCARD, BLKZEROOUT.
int clinux_ioctl_range(int fd, unsigned long request, uint64_t start, uint64_t length);
int clinux_fcntl(int fd, int command, long argument);
/// Takes an open-file-description lock on [start, start + length), exclusive or shared, without waiting.
int clinux_ofd_lock(int fd, int exclusive, off_t start, off_t length);
/// Releases an open-file-description lock on [start, start + length).
int clinux_ofd_unlock(int fd, off_t start, off_t length);
/// Asks whether an exclusive lock on [start, start + length) would conflict: 1 yes, 0 no, or a negative errno value.
int clinux_ofd_test(int fd, off_t start, off_t length);
int clinux_gettid(void);
/// Has the kernel send `signal` to the process when the thread that started it ends (PR_SET_PDEATHSIG); 0, or a negative errno value.
int clinux_signal_at_parents_end(int signal);
/// Waits while `*word == expected`, at most `timeout` (NULL: for ever); 0, or a negative errno value.
int clinux_futex_wait(uint32_t *word, uint32_t expected, const struct timespec *timeout);
/// Wakes at most `count` waiters on `word`; their number, or a negative errno value.
int clinux_futex_wake(uint32_t *word, int count);
/// Sets the calling thread's name as debuggers and /proc show it (15 characters at most).
void clinux_thread_name(const char *name);
/// Blocks the `count` signals in `signals` for the calling thread and those it starts, and makes a descriptor that reads them.
int clinux_signalfd(const int *signals, int count);
/// Reads one signal's number from a descriptor made by clinux_signalfd; 0 where none is waiting.
int clinux_signalfd_read(int fd);
/// User and system CPU time of the process, or of the calling thread, in microseconds; the process's largest resident KiB.
void clinux_usage(int of_thread, uint64_t *user_us, uint64_t *system_us, uint64_t *resident_max_kib);
/// Sends a signal to one thread of this process.
int clinux_tgkill(int tid, int signal);

static inline uint64_t clinux_monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void clinux_pause(void) { __builtin_ia32_pause(); }
static inline uint64_t clinux_tsc(void) { return __builtin_ia32_rdtsc(); }

// Accesses to memory that a guest writes at the same time: one load or store of exactly this width, never repeated,
// split or invented by the compiler. The acquire and release forms order the ring indices.
static inline uint8_t clinux_load8(const void *p) { return __atomic_load_n((const uint8_t *)p, __ATOMIC_RELAXED); }
static inline uint16_t clinux_load16(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED); }
static inline uint32_t clinux_load32(const void *p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED); }
static inline uint64_t clinux_load64(const void *p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED); }
static inline uint32_t clinux_load32_acquire(const void *p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE); }
static inline uint16_t clinux_load16_acquire(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE); }
static inline void clinux_store8(void *p, uint8_t v) { __atomic_store_n((uint8_t *)p, v, __ATOMIC_RELAXED); }
static inline void clinux_store16(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELAXED); }
static inline void clinux_store32(void *p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED); }
static inline void clinux_store64(void *p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED); }
static inline void clinux_store16_release(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE); }
// Sequentially consistent: for protocols in which two threads each write one word and then read the other's.
static inline uint32_t clinux_load32_ordered(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline void clinux_store32_ordered(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
/// Adds and gives the new value.
static inline uint32_t clinux_add32_ordered(uint32_t *p, uint32_t v) { return __atomic_add_fetch(p, v, __ATOMIC_SEQ_CST); }
static inline void clinux_fence_full(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void clinux_fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
static inline void clinux_fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }

#endif
