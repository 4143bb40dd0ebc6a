/* custody: descriptors that came from outside: what one is, which one it is, and how it is closed */
#pragma once

#include <stdint.h>

/* Is this one that may be parked, that is, a socket? Returns 0, -ENOTSOCK, or another negative errno. */
int descriptor_check(int fd);

/* What tells a socket from all others that ever were in this boot (SO_COOKIE), however many copies of it there are. Returns
 * negative errno. */
int descriptor_identity(int fd, uint64_t *ret);

/* Close one that is ours. If it is a socket this does not wait for its peer; another file may wait (custody/disposal.h). */
void descriptor_close(int fd);

/* The same for sockets only. Returns -ENOTSOCK for another file, which is left open. */
int descriptor_close_socket(int fd);
