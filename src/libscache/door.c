/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "libscache/handle.h"

/* The connection to the service. */

int handle_open(struct scache *scache) {
        _cleanup_(closep) int fd = -1;

        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *) &scache->address, sizeof(scache->address)) < 0)
                return errno == EINTR ? -EAGAIN : -errno;

        scache->socket = steal_fd(&fd);
        scache->watched = 0;
        scache->can_inline = scache->can_save = scache->can_farewell = scache->can_epoch = false;
        return 0;
}

void handle_disconnect(struct scache *scache) {
        if (scache->socket >= 0) {
                /* A socket that a child process has inherited would stay in the set. */
                if (scache->watched != 0)
                        (void) epoll_ctl(scache->epoll_fd, EPOLL_CTL_DEL, scache->socket, NULL);
                (void) close(steal_fd(&scache->socket));
        }

        closep(&scache->passing.fd);
        scache->passing = (struct wire_passing){ WIRE_PASSED_NONE, -1 };
        scache->output_has_fd = false;
        scache->watched = 0;
        wire_buffer_clear(&scache->output);
        wire_buffer_clear(&scache->input);
        wire_parser_reset(&scache->parser);
}

short handle_events(const struct scache *scache) {
        return wire_buffer_fill(&scache->output) > 0 ? POLLIN | POLLOUT : POLLIN;
}

int handle_watch(struct scache *scache) {
        struct epoll_event event = { .events = EPOLLIN };

        if (scache->epoll_fd < 0 || scache->socket < 0)
                return 0;

        if (wire_buffer_fill(&scache->output) > 0)
                event.events |= EPOLLOUT;
        if (event.events == scache->watched)
                return 0;
        if (epoll_ctl(scache->epoll_fd, scache->watched == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, scache->socket,
                    &event) < 0)
                return -errno;

        scache->watched = event.events;
        return 0;
}
