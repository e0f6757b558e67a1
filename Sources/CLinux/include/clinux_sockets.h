// SPDX-License-Identifier: Apache-2.0
// Stream sockets of this host, in one step each. Every function returns a negative errno value where it fails; descriptors
// are close-on-exec.
#ifndef SPINDLE_CLINUX_SOCKETS_H
#define SPINDLE_CLINUX_SOCKETS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// Connects to the socket at `path`, waiting for it; ENAMETOOLONG where the path does not fit an address.
int clinux_unix_connect(const char *path);
/// Listens at `path`, which must not exist; accepting does not wait.
int clinux_unix_listen(const char *path, int backlog);
/// Connects to 127.0.0.1, waiting for it; small messages are not held back.
int clinux_loopback_connect(uint16_t port);
/// Listens on 127.0.0.1 (port 0: a free one); accepting does not wait.
int clinux_loopback_listen(uint16_t port, int backlog);
/// The port that a descriptor of clinux_loopback_listen has.
int clinux_loopback_port(int fd);
/// Takes the next connection; EAGAIN where there is none.
int clinux_accept(int fd);
/// Makes two sockets that are connected to each other.
int clinux_socketpair(int descriptors[2]);
/// Whether the descriptor is a socket: 1 or 0.
int clinux_is_socket(int fd);
/// Reads without waiting; 0 at the end, EAGAIN where there is nothing.
ssize_t clinux_receive(int fd, void *buffer, size_t count);
/// Writes without waiting and, to a socket, without SIGPIPE; EAGAIN where there is no room.
ssize_t clinux_send(int fd, const void *buffer, size_t count);
int clinux_unlink(const char *path);
/// Longest path of a Unix socket.
extern const int clinux_unix_path_max;
/// Whether a path is a socket: 1 or 0.
int clinux_path_is_socket(const char *path);
/// A second descriptor for the same file, close-on-exec.
int clinux_duplicate(int fd);

#endif
