/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "wire/message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

/* As many as the kernel passes with a message (SCM_MAX_FD). It drops those for which there is no room, and whoever drops the
 * last copy of a socket may wait for its peer. */
#define DESCRIPTORS_MAX 253

union control {
        struct cmsghdr header;
        char space[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
};

ssize_t wire_receive_with(
        int socket, void *data, size_t size, wire_discard_fn fn, void *userdata, struct wire_passing *ret) {
        union control control;
        struct iovec iov = { data, size };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        int fds[DESCRIPTORS_MAX];
        size_t n_fds = 0;
        ssize_t n;

        do
                n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);

        *ret = (struct wire_passing){ WIRE_PASSED_NONE, -1 };
        if (n < 0)
                return -errno;
        if (message.msg_controllen == 0 && !(message.msg_flags & MSG_CTRUNC))
                return n;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
                size_t n_here;

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                n_here = MIN((c->cmsg_len - CMSG_LEN(0)) / sizeof(int), ELEMENTSOF(fds) - n_fds);
                memcpy(fds + n_fds, CMSG_DATA(c), n_here * sizeof(int));
                n_fds += n_here;
        }

        if (n_fds == 1 && !(message.msg_flags & MSG_CTRUNC)) {
                *ret = (struct wire_passing){ WIRE_PASSED_ONE, fds[0] };
                return n;
        }

        if (n_fds > 1)
                ret->passed = WIRE_PASSED_MANY;
        else if (message.msg_flags & MSG_CTRUNC)
                ret->passed = WIRE_PASSED_LOST;
        for (size_t i = 0; i < n_fds; i++)
                fn(userdata, fds[i]);
        return n;
}

static void discard(_unused_ void *userdata, int fd) {
        (void) close(fd);
}

ssize_t wire_receive(int socket, void *data, size_t size, struct wire_passing *ret) {
        return wire_receive_with(socket, data, size, discard, NULL, ret);
}

/* A message with a descriptor beside it. */
static ssize_t send_with(int socket, const void *data, size_t size, int fd) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {};
        struct iovec iov = { (void *) data, size };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = CMSG_SPACE(sizeof(int)),
        };

        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
        return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t wire_send(int socket, const void *data, size_t size, int fd) {
        ssize_t n;

        /* Most messages come alone, and send(2) has less to look at than sendmsg(2). */
        do
                n = fd >= 0 ? send_with(socket, data, size, fd)
                            : send(socket, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);

        return n < 0 ? -errno : n;
}
