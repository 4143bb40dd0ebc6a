/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* custody: descriptors from outside: check, identify and close them */
#pragma once

#include <stdint.h>

/* Check that a descriptor is a socket, and so may be parked. Returns 0, -ENOTSOCK, or another negative errno. */
int descriptor_check(int fd);

/* Get the number that identifies a socket, and all copies of it, during this boot (SO_COOKIE). Returns negative errno. */
int descriptor_identity(int fd, uint64_t *ret);

/* Close a descriptor. For a socket, this does not wait for the peer; for another file it may wait (custody/disposal.h). */
void descriptor_close(int fd);

/* The same for sockets only. Returns -ENOTSOCK for another file, which is left open. */
int descriptor_close_socket(int fd);
