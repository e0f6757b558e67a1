// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "clinux_sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

const int clinux_unix_path_max = sizeof ((struct sockaddr_un *)0)->sun_path - 1;

static int refuse(int fd) {
  int code = errno;
  close(fd);
  return -code;
}

/// Waits for a connection that a signal has interrupted and that goes on by itself (connect(2), EINTR).
static int connect_wholly(int fd, const struct sockaddr *address, socklen_t length) {
  if (connect(fd, address, length) == 0) return 0;
  while (errno == EINTR || errno == EALREADY) {
    if (connect(fd, address, length) == 0 || errno == EISCONN) return 0;
  }
  return -1;
}

static int unix_address(struct sockaddr_un *address, const char *path) {
  if (strlen(path) >= sizeof address->sun_path) return -ENAMETOOLONG;
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  strcpy(address->sun_path, path);
  return 0;
}

int clinux_unix_connect(const char *path) {
  struct sockaddr_un address;
  int result = unix_address(&address, path);
  if (result < 0) return result;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  return connect_wholly(fd, (struct sockaddr *)&address, sizeof address) < 0 ? refuse(fd) : fd;
}

int clinux_unix_listen(const char *path, int backlog) {
  struct sockaddr_un address;
  int result = unix_address(&address, path);
  if (result < 0) return result;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) return refuse(fd);
  return listen(fd, backlog) < 0 ? refuse(fd) : fd;
}

static struct sockaddr_in loopback(uint16_t port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

static void send_at_once(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

int clinux_loopback_connect(uint16_t port) {
  struct sockaddr_in address = loopback(port);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  send_at_once(fd);
  return connect_wholly(fd, (struct sockaddr *)&address, sizeof address) < 0 ? refuse(fd) : fd;
}

int clinux_loopback_listen(uint16_t port, int backlog) {
  struct sockaddr_in address = loopback(port);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) return refuse(fd);
  return listen(fd, backlog) < 0 ? refuse(fd) : fd;
}

int clinux_loopback_port(int fd) {
  struct sockaddr_in address;
  socklen_t length = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &length) < 0) return -errno;
  return ntohs(address.sin_port);
}

int clinux_accept(int fd) {
  int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
  if (connection < 0) return -errno;
  // Refused by a Unix socket, which does not hold anything back.
  send_at_once(connection);
  return connection;
}

int clinux_socketpair(int descriptors[2]) {
  return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, descriptors) < 0 ? -errno : 0;
}

int clinux_is_socket(int fd) {
  struct stat facts;
  return fstat(fd, &facts) == 0 && S_ISSOCK(facts.st_mode);
}

ssize_t clinux_receive(int fd, void *buffer, size_t count) {
  ssize_t result = recv(fd, buffer, count, MSG_DONTWAIT);
  return result < 0 ? -errno : result;
}

ssize_t clinux_send(int fd, const void *buffer, size_t count) {
  ssize_t result = send(fd, buffer, count, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (result < 0 && errno == ENOTSOCK) result = write(fd, buffer, count);
  return result < 0 ? -errno : result;
}

int clinux_unlink(const char *path) { return unlink(path) < 0 ? -errno : 0; }

int clinux_path_is_socket(const char *path) {
  struct stat facts;
  if (lstat(path, &facts) < 0) return -errno;
  return S_ISSOCK(facts.st_mode);
}

int clinux_duplicate(int fd) {
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  return copy < 0 ? -errno : copy;
}
