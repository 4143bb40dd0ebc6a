/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/descriptor.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262 /* as in glibc from 2.32 on */
#endif

/* As many as can be parked by default, or so. Memory is taken as they come. */
#define KNOWN_MAX UINT64_C(65536)

/* The place of a socket is its number modulo KNOWN_MAX; the entry is the quotient, and comes again after 2^48 sockets. */
struct descriptors {
        uint32_t known[KNOWN_MAX]; /* 0: none */
};

struct descriptors *descriptors_new(void) {
        return calloc(1, sizeof(struct descriptors));
}

struct descriptors *descriptors_free(struct descriptors *descriptors) {
        free(descriptors);
        return NULL;
}

/* None of these options takes the lock of the socket, which whoever else holds it may keep. */

static int get(int fd, int option) {
        socklen_t size = sizeof(int);
        int value;

        return getsockopt(fd, SOL_SOCKET, option, &value, &size) < 0 ? -errno : value;
}

int descriptor_identify(int fd, uint64_t *ret) {
        socklen_t size = sizeof(*ret);

        return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret, &size) < 0 ? -errno : 0;
}

/* Other kinds are no connections. To look whether there is something to read from them may wait, and what is sent to a
 * datagram socket may be taken for the daemon's own word. */
static int check_kind(int fd) {
        int type, domain, protocol;

        type = get(fd, SO_TYPE);
        if (type < 0)
                return type;
        domain = get(fd, SO_DOMAIN);
        if (domain < 0)
                return domain;
        protocol = get(fd, SO_PROTOCOL);
        if (protocol < 0)
                return protocol;

        if (type == SOCK_STREAM &&
                (domain == AF_UNIX ||
                        ((domain == AF_INET || domain == AF_INET6) &&
                                (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP))))
                return 0;
        return -EPROTOTYPE;
}

int descriptor_check(struct descriptors *descriptors, int fd, uint64_t *ret) {
        uint32_t *known, mark;
        int r;

        r = descriptor_identify(fd, ret);
        if (r < 0)
                return r;

        /* A socket never becomes one of another kind. */
        known = &descriptors->known[*ret % KNOWN_MAX];
        mark = (uint32_t) (*ret / KNOWN_MAX) + 1;
        if (*known == mark && mark != 0)
                return 0;

        r = check_kind(fd);
        if (r >= 0)
                *known = mark;
        return r;
}
