/* wire: bytes and descriptors through a stream socket, without ever waiting */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* What came along with received bytes. */
enum wire_passed {
        WIRE_PASSED_NONE,
        WIRE_PASSED_ONE,  /* one descriptor; the receiver owns it */
        WIRE_PASSED_MANY, /* more than one: closed */
        WIRE_PASSED_LOST, /* the kernel had to drop some for want of room in our descriptor table: closed */
        WIRE_PASSED_DECLINED, /* the receiver takes none now: dropped by the kernel */
};

struct wire_passing {
        enum wire_passed passed;
        int fd; /* with WIRE_PASSED_ONE, else -1 */
};

/* Read at most SIZE bytes. The kernel ends a read after the bytes a descriptor was sent with, so it belongs to
 * the last byte returned. The new descriptor is close-on-exec. Returns the number of bytes, 0 at the end of
 * the stream, -EAGAIN if there is nothing yet, or another negative errno (-ECONNRESET: the peer closed while it
 * had not read all that was sent to it). */
ssize_t wire_receive(int socket, void *data, size_t size, struct wire_passing *ret);

/* Where descriptors go that were received and are not wanted: close(2) may wait for whoever sent them. */
struct wire_discarder {
        void (*fn)(void *userdata, int fd); /* NULL: take none at all */
        void *userdata;
};

/* The same for a receiver that must not wait: what would be closed goes to DISCARDER. */
ssize_t wire_receive_with(int socket, void *data, size_t size, const struct wire_discarder *discarder,
        struct wire_passing *ret);

/* Send bytes, with a descriptor attached to the first of them unless FD is -1. FD stays the caller's. Returns the
 * number of bytes taken, at least one, or negative errno: -EAGAIN if the peer must read first, -EPIPE if it is
 * gone, -ETOOMANYREFS if too many descriptors are on their way already. */
ssize_t wire_send(int socket, const void *data, size_t size, int fd);
