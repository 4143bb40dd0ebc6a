/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scached/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "agents/server.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "custody/disposal.h"
#include "daemon/timer.h"
#include "handover/passed.h"
#include "scached/arrivals.h"

/* If there is no room for one more agent, and none can be made, we accept none for this time. */
#define REST_US (UINT64_C(100) * USEC_PER_MSEC)

struct listener {
        int fd;
        enum dialect dialect;
        char *queue; /* the queue directory of Postfix that has this socket, or NULL */
};

struct listeners {
        struct server *server;
        struct arrivals *arrivals;
        struct disposal *disposal;
        struct loop_timer rest_timer;
        bool made_room; /* and accepted no agent since */
        size_t n_listeners;
        struct listener listeners[];
};

static void on_rest_timer(void *userdata) {
        struct listeners *listeners = userdata;

        for (size_t i = 0; i < listeners->n_listeners; i++)
                (void) loop_modify(listeners->server->loop, listeners->listeners[i].fd, LOOP_LISTENER,
                        &listeners->listeners[i], EPOLLIN);
}

static void rest(struct listeners *listeners) {
        for (size_t i = 0; i < listeners->n_listeners; i++)
                (void) loop_modify(listeners->server->loop, listeners->listeners[i].fd, LOOP_LISTENER,
                        &listeners->listeners[i], 0);
        loop_timer_set(&listeners->rest_timer, usec_add(clock_now(CLOCK_BOOTTIME), REST_US));
}

/* There is no descriptor or memory for one more agent: evict a connection, which is worth less than an agent that waits. */
static void make_room(struct listeners *listeners, int error) {
        struct server *server = listeners->server;

        journal_say(
                server->journal, ACCEPT_FAILED, NULL, "Could not accept an agent: %s.", strerror(-error));

        /* Only once for each agent. If it did not help, other processes take the room before we do, and evicting more would
         * not help either. */
        if (listeners->made_room) {
                listeners->made_room = false;
                rest(listeners);
                return;
        }

        listeners->made_room = custody_make_room(server->custody);
        if (!listeners->made_room)
                rest(listeners);
}

/* Accept one agent from each socket in a round, after the connected agents were served: so these do not wait for many that
 * connect. */
static void on_ready(void *userdata, void *object, _unused_ uint32_t events) {
        struct listeners *listeners = userdata;
        struct listener *listener = object;
        int agent_fd;

        agent_fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
        if (agent_fd < 0) {
                if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
                        make_room(listeners, -errno);
                return;
        }

        listeners->made_room = false;
        arrivals_take(listeners->arrivals, agent_fd, listener->dialect, listener->queue);
}

/* Postfix has the sockets of its services in QUEUE/private. Returns QUEUE, which the caller frees, or NULL. */
static char *find_queue(int fd) {
        struct sockaddr_un address = {};
        socklen_t size = sizeof(address);
        char *name, *directory;

        if (getsockname(fd, (struct sockaddr *) &address, &size) < 0 || address.sun_path[0] != '/')
                return NULL;

        address.sun_path[sizeof(address.sun_path) - 1] = '\0';
        name = strrchr(address.sun_path, '/');
        *name = '\0';
        directory = strrchr(address.sun_path, '/');
        if (!directory || directory == address.sun_path || strcmp(directory, "/private") != 0)
                return NULL;

        *directory = '\0';
        return strdup(address.sun_path);
}

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* since Linux 6.16; systemd 258 has AcceptFileDescriptors= for it */
#endif

/* Agents park connections by passing descriptors: let the socket accept descriptors. */
static void accept_descriptors(struct journal *journal, const struct passed_socket *socket) {
        static const int on = 1;
        int value = on;
        socklen_t size = sizeof(value);

        if (getsockopt(socket->fd, SOL_SOCKET, SO_PASSRIGHTS, &value, &size) < 0 || value)
                return;
        if (setsockopt(socket->fd, SOL_SOCKET, SO_PASSRIGHTS, &on, sizeof(on)) == 0)
                journal_say(journal, SOCKET_RESTRICTED, NULL,
                        "The socket \"%s\" was passed with AcceptFileDescriptors=no, which scached has "
                        "turned "
                        "off: remove it from the socket unit.",
                        socket->name);
}

static int listener_init(struct listener *listener, struct listeners *all, int fd, enum dialect dialect) {
        static const int off = 0;
        int flags, r;

        listener->dialect = dialect;

        /* An agent may be gone before we accept it: accept4(2) must not wait then. */
        flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return -errno;

        /* Credentials in each message would take the room of descriptors. */
        if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &off, sizeof(off)) < 0)
                return -errno;

        r = loop_add(all->server->loop, fd, LOOP_LISTENER, listener, EPOLLIN);
        if (r < 0)
                return r;

        if (dialect == DIALECT_POSTFIX || dialect == DIALECT_POSTFIX_LEGACY)
                listener->queue = find_queue(fd);
        listener->fd = fd;
        return 0;
}

/* Return why we cannot serve a socket that the service manager passed, or NULL. */
static const char *objection(int fd, enum dialect dialect) {
        if (dialect == _DIALECT_INVALID)
                return "its FileDescriptorName= is not a dialect";
        if (sd_is_socket(fd, AF_UNIX, SOCK_STREAM, 1) <= 0)
                return "it is not a listening AF_UNIX stream socket";
        return NULL;
}

int listeners_new(struct listeners **ret, struct server *server, struct arrivals *arrivals,
        struct disposal *disposal, struct passed *passed) {
        struct listeners *listeners;
        int r;

        listeners = calloc(1, sizeof(*listeners) + passed->n_sockets * sizeof(struct listener));
        if (!listeners)
                return -ENOMEM;
        listeners->server = server;
        listeners->arrivals = arrivals;
        listeners->disposal = disposal;

        loop_on_ready(server->loop, LOOP_LISTENER, on_ready, listeners);
        r = loop_timer_init(&listeners->rest_timer, server->loop, on_rest_timer, listeners);

        for (size_t i = 0; i < passed->n_sockets && r >= 0; i++) {
                struct passed_socket *socket = &passed->sockets[i];
                enum dialect dialect = dialect_from_name(socket->name);
                const char *why = objection(socket->fd, dialect);

                if (why) {
                        journal_say(server->journal, SOCKET_UNKNOWN, NULL,
                                "Closed the socket \"%s\" that was passed at the start: %s.", socket->name,
                                why);
                        disposal_close(disposal, 0, DISPOSAL_SOCKET, steal_fd(&socket->fd));
                        continue;
                }

                if (dialect != DIALECT_CONTROL)
                        accept_descriptors(server->journal, socket);
                r = listener_init(
                        &listeners->listeners[listeners->n_listeners], listeners, socket->fd, dialect);
                if (r >= 0) {
                        (void) steal_fd(&socket->fd);
                        listeners->n_listeners++;
                }
        }

        if (r >= 0 && listeners->n_listeners == 0)
                r = -ENOENT;
        if (r < 0) {
                listeners_free(listeners);
                return r;
        }

        *ret = listeners;
        return 0;
}

struct listeners *listeners_free(struct listeners *listeners) {
        if (!listeners)
                return NULL;

        loop_timer_release(&listeners->rest_timer);
        for (size_t i = 0; i < listeners->n_listeners; i++) {
                loop_remove(listeners->server->loop, listeners->listeners[i].fd, &listeners->listeners[i]);
                disposal_close(listeners->disposal, 0, DISPOSAL_SOCKET, listeners->listeners[i].fd);
                free(listeners->listeners[i].queue);
        }
        free(listeners);
        return NULL;
}
