// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "clinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

const int clinux_O_DIRECT = O_DIRECT;
const int clinux_O_TMPFILE = O_TMPFILE;
const int clinux_FALLOC_FL_KEEP_SIZE = FALLOC_FL_KEEP_SIZE;
const int clinux_FALLOC_FL_PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE;
const int clinux_FALLOC_FL_ZERO_RANGE = FALLOC_FL_ZERO_RANGE;
const int clinux_RWF_DSYNC = RWF_DSYNC;
const unsigned long clinux_BLKGETSIZE64 = BLKGETSIZE64;
const unsigned long clinux_BLKSSZGET = BLKSSZGET;
const unsigned long clinux_BLKPBSZGET = BLKPBSZGET;
const unsigned long clinux_BLKDISCARD = BLKDISCARD;
const unsigned long clinux_BLKZEROOUT = BLKZEROOUT;

#define OR_ERRNO(expression) \
  do { \
    __typeof__(expression) result = (expression); \
    return result < 0 ? -errno : result; \
  } while (0)

int clinux_open(const char *path, int flags, int mode) { OR_ERRNO(open(path, flags | O_CLOEXEC, mode)); }
int clinux_close(int fd) { OR_ERRNO(close(fd)); }
int clinux_ppoll(struct pollfd *fds, unsigned long count, const struct timespec *timeout, const sigset_t *mask) {
  OR_ERRNO(ppoll(fds, count, timeout, mask));
}
int clinux_eventfd(unsigned int initial, int nonblocking) {
  OR_ERRNO(eventfd(initial, EFD_CLOEXEC | (nonblocking ? EFD_NONBLOCK : 0)));
}
ssize_t clinux_read(int fd, void *buffer, size_t count) { OR_ERRNO(read(fd, buffer, count)); }
ssize_t clinux_write(int fd, const void *buffer, size_t count) { OR_ERRNO(write(fd, buffer, count)); }
ssize_t clinux_pread(int fd, void *buffer, size_t count, off_t offset) { OR_ERRNO(pread(fd, buffer, count, offset)); }
ssize_t clinux_pwrite(int fd, const void *buffer, size_t count, off_t offset) {
  OR_ERRNO(pwrite(fd, buffer, count, offset));
}

const int clinux_EPOLL_CTL_ADD = EPOLL_CTL_ADD;
const int clinux_EPOLL_CTL_MOD = EPOLL_CTL_MOD;
const int clinux_EPOLL_CTL_DEL = EPOLL_CTL_DEL;
_Static_assert(sizeof(clinux_epoll_event) == sizeof(struct epoll_event), "ours is the kernel's");

int clinux_epoll_create(void) { OR_ERRNO(epoll_create1(EPOLL_CLOEXEC)); }
int clinux_epoll_ctl(int epoll, int operation, int fd, uint32_t events, uint64_t token) {
  struct epoll_event event = {.events = events, .data.u64 = token};
  OR_ERRNO(epoll_ctl(epoll, operation, fd, &event));
}

int clinux_epoll_wait(int epoll, clinux_epoll_event *events, int count, uint64_t timeout_ns) {
  struct epoll_event *found = (struct epoll_event *)events;
  if (timeout_ns == 0) OR_ERRNO(epoll_wait(epoll, found, count, 0));
  if (timeout_ns == UINT64_MAX) OR_ERRNO(epoll_wait(epoll, found, count, -1));
  struct timespec time = {.tv_sec = (time_t)(timeout_ns / 1000000000u), .tv_nsec = (long)(timeout_ns % 1000000000u)};
#ifdef SYS_epoll_pwait2
  int result = (int)syscall(SYS_epoll_pwait2, epoll, found, count, &time, NULL, 0);
  if (result >= 0 || errno != ENOSYS) return result < 0 ? -errno : result;
#endif
  // Before Linux 5.11 epoll knows milliseconds only: ppoll waits in its place.
  struct pollfd poll = {.fd = epoll, .events = POLLIN};
  if (ppoll(&poll, 1, &time, NULL) < 0) return -errno;
  OR_ERRNO(epoll_wait(epoll, found, count, 0));
}

ssize_t clinux_preadv2(int fd, const struct iovec *iovecs, int count, off_t offset, int flags) {
  OR_ERRNO(preadv2(fd, iovecs, count, offset, flags));
}
ssize_t clinux_pwritev2(int fd, const struct iovec *iovecs, int count, off_t offset, int flags) {
  OR_ERRNO(pwritev2(fd, iovecs, count, offset, flags));
}
long clinux_file_system(int fd) {
  struct statfs status;
  if (fstatfs(fd, &status) < 0) return -errno;
  return (long)(uint32_t)status.f_type;
}
unsigned clinux_major(unsigned long device) { return major(device); }
unsigned clinux_minor(unsigned long device) { return minor(device); }
int clinux_memfd_create(const char *name) { OR_ERRNO(memfd_create(name, MFD_CLOEXEC)); }
int clinux_ftruncate(int fd, off_t length) { OR_ERRNO(ftruncate(fd, length)); }
int clinux_fallocate(int fd, int mode, off_t offset, off_t length) { OR_ERRNO(fallocate(fd, mode, offset, length)); }
int clinux_fdatasync(int fd) { OR_ERRNO(fdatasync(fd)); }

int clinux_mmap(void **out, void *hint, size_t length, int prot, int flags, int fd, off_t offset) {
  void *address = mmap(hint, length, prot, flags, fd, offset);
  if (address == MAP_FAILED) return -errno;
  *out = address;
  return 0;
}
int clinux_munmap(void *address, size_t length) { OR_ERRNO(munmap(address, length)); }
int clinux_mremap(void **address, size_t length, size_t new_length) {
  void *moved = mremap(*address, length, new_length, MREMAP_MAYMOVE);
  if (moved == MAP_FAILED) return -errno;
  *address = moved;
  return 0;
}
int clinux_madvise(void *address, size_t length, int advice) { OR_ERRNO(madvise(address, length, advice)); }
int clinux_ioctl(int fd, unsigned long request, uintptr_t argument) { OR_ERRNO(ioctl(fd, request, argument)); }
int clinux_ioctl_range(int fd, unsigned long request, uint64_t start, uint64_t length) {
  uint64_t range[2] = {start, length};
  OR_ERRNO(ioctl(fd, request, range));
}
int clinux_fcntl(int fd, int command, long argument) { OR_ERRNO(fcntl(fd, command, argument)); }

static int ofd(int fd, int command, short type, off_t start, off_t length, struct flock *out) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length, .l_pid = 0};
  int result = fcntl(fd, command, &lock);
  if (out) *out = lock;
  return result < 0 ? -errno : 0;
}
int clinux_ofd_lock(int fd, int exclusive, off_t start, off_t length) {
  return ofd(fd, F_OFD_SETLK, exclusive ? F_WRLCK : F_RDLCK, start, length, NULL);
}
int clinux_ofd_unlock(int fd, off_t start, off_t length) { return ofd(fd, F_OFD_SETLK, F_UNLCK, start, length, NULL); }
int clinux_ofd_test(int fd, off_t start, off_t length) {
  struct flock lock;
  int result = ofd(fd, F_OFD_GETLK, F_WRLCK, start, length, &lock);
  return result < 0 ? result : lock.l_type != F_UNLCK;
}

int clinux_gettid(void) { return (int)syscall(SYS_gettid); }
int clinux_signal_at_parents_end(int signal) { OR_ERRNO(prctl(PR_SET_PDEATHSIG, (unsigned long)signal)); }
int clinux_futex_wait(uint32_t *word, uint32_t expected, const struct timespec *timeout) {
  OR_ERRNO((int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout, NULL, 0));
}
int clinux_futex_wake(uint32_t *word, int count) {
  OR_ERRNO((int)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0));
}
void clinux_thread_name(const char *name) { pthread_setname_np(pthread_self(), name); }
int clinux_signalfd(const int *signals, int count) {
  sigset_t set;
  sigemptyset(&set);
  for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
  int result = pthread_sigmask(SIG_BLOCK, &set, NULL);
  if (result) return -result;
  OR_ERRNO(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}
int clinux_signalfd_read(int fd) {
  struct signalfd_siginfo info;
  return read(fd, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}
void clinux_usage(int of_thread, uint64_t *user_us, uint64_t *system_us, uint64_t *resident_max_kib) {
  struct rusage usage;
  getrusage(of_thread ? RUSAGE_THREAD : RUSAGE_SELF, &usage);
  *user_us = (uint64_t)usage.ru_utime.tv_sec * 1000000u + (uint64_t)usage.ru_utime.tv_usec;
  *system_us = (uint64_t)usage.ru_stime.tv_sec * 1000000u + (uint64_t)usage.ru_stime.tv_usec;
  *resident_max_kib = (uint64_t)usage.ru_maxrss;
}
int clinux_tgkill(int tid, int signal) { OR_ERRNO((int)syscall(SYS_tgkill, getpid(), tid, signal)); }
