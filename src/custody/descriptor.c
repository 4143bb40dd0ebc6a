/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/descriptor.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

int descriptor_check(int fd) {
        socklen_t size = sizeof(int);
        int type;

        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ? -errno : 0;
}

int descriptor_identity(int fd, uint64_t *ret) {
        socklen_t size = sizeof(*ret);

        return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret, &size) < 0 ? -errno : 0;
}

void descriptor_close(int fd) {
        if (descriptor_close_socket(fd) < 0)
                (void) close(fd);
}

int descriptor_close_socket(int fd) {
        static const struct linger off = {};

        /* With SO_LINGER, whoever closes the last copy of a TCP socket waits for its peer. Others who hold the socket can set
         * it at any time, so it is taken off last; and they may have closed theirs already, so ours may be the last one. */
        if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off)) < 0 && errno == ENOTSOCK)
                return -ENOTSOCK;

        (void) close(fd);
        return 0;
}
