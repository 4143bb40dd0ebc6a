/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* wire: sends and receives bytes and descriptors through a stream socket, without ever waiting */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* The descriptors that came with received bytes. */
enum wire_passed {
        WIRE_PASSED_NONE,
        WIRE_PASSED_ONE,  /* one descriptor; the receiver owns it */
        WIRE_PASSED_MANY, /* more than one: closed */
        WIRE_PASSED_LOST, /* the kernel dropped some, because our descriptor table was full: closed */
};

struct wire_passing {
        enum wire_passed passed;
        int fd; /* with WIRE_PASSED_ONE, otherwise -1 */
};

/* Receive at most SIZE bytes. The kernel ends a read after the bytes with which a descriptor was sent, so the descriptor
 * belongs to the last byte returned. It is close-on-exec. Returns the number of bytes, 0 at the end of the stream, -EAGAIN if
 * there is nothing yet, or another negative errno (-ECONNRESET: the peer closed before it had read everything). */
ssize_t wire_receive(int socket, void *data, size_t size, struct wire_passing *ret);

/* Takes an unexpected descriptor. */
typedef void (*wire_discard_fn)(void *userdata, int fd);

/* The same for a receiver that must not wait, as close(2) may: descriptors to close go to FN. There is room for as many as a
 * message carries, so that the kernel never has to close one for us. */
ssize_t wire_receive_with(
        int socket, void *data, size_t size, wire_discard_fn fn, void *userdata, struct wire_passing *ret);

/* Send bytes, with a descriptor attached to the first of them unless FD is -1. FD stays the caller's. Returns the number of
 * bytes sent, at least one, or negative errno: -EAGAIN if the peer must read first, -EPIPE if it is gone, -ETOOMANYREFS if
 * too many descriptors are in flight. */
ssize_t wire_send(int socket, const void *data, size_t size, int fd);
