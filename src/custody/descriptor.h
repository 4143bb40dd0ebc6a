/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* custody: descriptors from outside: check and identify them, by calls that wait for nobody */
#pragma once

#include <stdint.h>

/* Sockets that have been found to be connections, so that the next look at each takes one call. */
struct descriptors;

/* Make one that knows no sockets so far. Returns NULL without memory. */
struct descriptors *descriptors_new(void);
struct descriptors *descriptors_free(struct descriptors *descriptors);

/* Get the number that identifies a socket, and all copies of it, during this boot (SO_COOKIE); it is never 0. Returns -ENOTSOCK,
 * or another negative errno. */
int descriptor_identify(int fd, uint64_t *ret);

/* The same for what may be parked: a stream socket of TCP, MPTCP or AF_UNIX. Returns -ENOTSOCK, -EPROTOTYPE for another
 * socket, or another negative errno. */
int descriptor_check(struct descriptors *descriptors, int fd, uint64_t *ret);
