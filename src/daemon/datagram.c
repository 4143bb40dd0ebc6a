/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/datagram.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"

/* The kernel's limit for one message (SCM_MAX_FD). */
#define FDS_MAX 253

void datagram_init(struct datagram *datagram, const char *path) {
        *datagram = (struct datagram){ -1, path };
}

void datagram_release(struct datagram *datagram) {
        closep(&datagram->fd);
        datagram->fd = -1;
}

static int connect_to(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_(closep) int fd = -1;
        size_t size = strlen(path);

        if (size == 0 || size >= sizeof(address.sun_path))
                return -EINVAL;
        memcpy(address.sun_path, path, size);
        /* An abstract name has no NUL at its end. */
        if (address.sun_path[0] == '@')
                address.sun_path[0] = 0;
        else
                size++;

        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 ||
                connect(fd, (const struct sockaddr *) &address,
                        (socklen_t) (offsetof(struct sockaddr_un, sun_path) + size)) < 0)
                return -errno;

        return steal_fd(&fd);
}

static int send_once(
        struct datagram *datagram, const struct iovec iov[], size_t n_iov, const int fds[], size_t n_fds) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
        } control;
        struct msghdr message = { .msg_iov = (struct iovec *) iov, .msg_iovlen = n_iov };

        if (datagram->fd < 0) {
                int fd = connect_to(datagram->path);

                if (fd < 0)
                        return fd;
                datagram->fd = fd;
        }

        if (n_fds > 0) {
                memset(&control, 0, CMSG_SPACE(n_fds * sizeof(int)));
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        }

        return sendmsg(datagram->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int datagram_send(
        struct datagram *datagram, const struct iovec iov[], size_t n_iov, const int fds[], size_t n_fds) {
        int r;

        if (n_fds > FDS_MAX)
                return -E2BIG;

        r = send_once(datagram, iov, n_iov, fds, n_fds);
        if (r != -ECONNREFUSED && r != -ECONNRESET && r != -ENOTCONN && r != -EPIPE)
                return r;

        /* The receiver closed that socket, and may have opened a new one. */
        datagram_release(datagram);
        return send_once(datagram, iov, n_iov, fds, n_fds);
}
