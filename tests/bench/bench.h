/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench: what the server at the floor and the agents agree on, and small helpers of both */
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Labels and properties of the sizes that Postfix uses: service, domain, port and the like in a label, what the server
 * said to EHLO in a property. %06u is the number of the connection; no NUL may be in them. */
#define DESTINATION_FORMAT   "smtp\nexample-%06u.example.org\n25\n\n512"
#define ENDPOINT_FORMAT      "smtp\n192.0.2.1\n25\nexample-%06u\n512"
#define DESTINATION_PROPERTY "reuse=1\nflags=0\nendpoint=mx1.example.org"
#define ENDPOINT_PROPERTY \
        "mx1.example.org\n192.0.2.1\n2525\nfeatures=1035\nsize=10240000\nreuse=3\nhelo=mail.example.net"
#define LABEL_MAX 64

/* What a server answers; a string literal's own NUL closes the list. */
#define GREETING     "protocol\0connection_cache_protocol\0"
#define ANSWER_OK    "status\0000\0"
#define ANSWER_NONE  "status\0002\0property\0\0"
#define ANSWER_DUMMY "dummy\0\0"
#define ANSWER_DESTINATION \
        "status\0000\0property\0" DESTINATION_PROPERTY "\0property\0" ENDPOINT_PROPERTY "\0"

#define NSEC_PER_SEC UINT64_C(1000000000)

/* Room for one descriptor beside a message. */
union control {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
};

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...) {
        int saved = errno;
        va_list arguments;

        va_start(arguments, format);
        (void) vfprintf(stderr, format, arguments);
        va_end(arguments);
        (void) fprintf(stderr, " (%s)\n", strerror(saved));
        exit(EXIT_FAILURE);
}

/* Now on the monotonic clock, in ns. */
static inline uint64_t now_ns(void) {
        struct timespec ts;

        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t) ts.tv_sec * NSEC_PER_SEC + (uint64_t) ts.tv_nsec;
}

/* xorshift64* of Marsaglia and Vigna. */
static inline unsigned random_below(uint64_t *state, unsigned n) {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        return (unsigned) (((*state * UINT64_C(2685821657736338717)) >> 33) % n);
}

static inline struct sockaddr_un unix_address(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        if (strlen(path) >= sizeof(address.sun_path))
                die("%s: too long for a socket", path);
        memcpy(address.sun_path, path, strlen(path) + 1);
        return address;
}

/* Fill in a message of one run of bytes, with a descriptor beside it unless FD is -1. IOV and CONTROL must outlive
 * the message. */
static inline struct msghdr message_of(
        struct iovec *iov, union control *control, const void *data, size_t size, int fd) {
        struct msghdr message = { .msg_iov = iov, .msg_iovlen = 1 };

        *iov = (struct iovec){ (void *) data, size };
        if (fd >= 0) {
                memset(control, 0, sizeof(*control));
                control->header.cmsg_level = SOL_SOCKET;
                control->header.cmsg_type = SCM_RIGHTS;
                control->header.cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(&control->header), &fd, sizeof(int));
                message.msg_control = control;
                message.msg_controllen = sizeof(*control);
        }
        return message;
}

/* The descriptor that came beside a received message, or -1. */
static inline int descriptor_of(struct msghdr *message) {
        struct cmsghdr *header = message->msg_controllen > 0 ? CMSG_FIRSTHDR(message) : NULL;
        int fd = -1;

        if (header && header->cmsg_type == SCM_RIGHTS)
                memcpy(&fd, CMSG_DATA(header), sizeof(int));
        return fd;
}
