/* custody: descriptors from outside: identify and close them */
#pragma once

#include <stdint.h>

/* Get the number that identifies a socket, and all copies of it, during this boot (SO_COOKIE); it is never 0. Returns -ENOTSOCK
 * for what is no socket, and so cannot be parked, or another negative errno. */
int descriptor_identity(int fd, uint64_t *ret);

/* Close a descriptor. For a socket, this does not wait for the peer; for another file it may wait (custody/disposal.h). */
void descriptor_close(int fd);

/* The same for sockets only. Returns -ENOTSOCK for another file, which is left open. */
int descriptor_close_socket(int fd);
