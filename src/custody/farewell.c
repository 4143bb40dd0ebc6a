/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/farewell.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "custody/descriptor.h"

/* How long a peer may take to answer a farewell and hang up. */
#define WAITING_TIME_US (UINT64_C(5) * USEC_PER_SEC)

/* How many bytes of an answer to a farewell are taken at once, to be thrown away. */
#define ANSWER_MAX 4096

/* Of a connection's owner_bits: it is in the list of those that wait for their peer. */
#define BIT_WAITING 1

static void stop_waiting(struct farewells *farewells, struct connection *connection) {
        TAILQ_REMOVE(&farewells->waiting, connection, siblings);
        farewells->n_waiting--;
        farewells_skip(farewells, connection);
}

static void on_timer(void *userdata) {
        struct farewells *farewells = userdata;
        uint64_t now = clock_now(CLOCK_BOOTTIME);
        struct connection *connection;

        while ((connection = TAILQ_FIRST(&farewells->waiting)) && connection->deadline.at_us <= now)
                stop_waiting(farewells, connection);

        if (connection)
                loop_timer_set(&farewells->timer, connection->deadline.at_us);
}

int farewells_init(
        struct farewells *farewells, struct loop *loop, struct statistics *statistics, size_t max) {
        *farewells = (struct farewells){ .loop = loop, .statistics = statistics, .max = max };
        TAILQ_INIT(&farewells->waiting);
        return loop_timer_init(&farewells->timer, loop, on_timer, farewells);
}

void farewells_release(struct farewells *farewells) {
        while (farewells_hurry(farewells))
                ;
        loop_timer_release(&farewells->timer);
}

/* Send the farewell. Returns whether it is worth waiting for an answer. */
static bool send_farewell(struct farewells *farewells, struct connection *connection) {
        struct slice farewell = connection_farewell(connection);
        char byte;

        if (farewell.size == 0)
                return false;

        /* A peer that has hung up or said goodbye itself gets none. */
        if (recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN)
                return false;

        if (send(connection->fd, farewell.data, farewell.size, MSG_DONTWAIT | MSG_NOSIGNAL) !=
                (ssize_t) farewell.size)
                return false;

        farewells->statistics->total.farewells++;
        return true;
}

void farewells_say(struct farewells *farewells, struct connection *connection) {
        if (!send_farewell(farewells, connection)) {
                farewells_skip(farewells, connection);
                return;
        }

        if (farewells->n_waiting >= farewells->max)
                (void) farewells_hurry(farewells);

        connection->owner_bits |= BIT_WAITING;
        connection->deadline.at_us = usec_add(loop_now(farewells->loop), WAITING_TIME_US);
        TAILQ_INSERT_TAIL(&farewells->waiting, connection, siblings);
        farewells->n_waiting++;
        if (!loop_timer_is_set(&farewells->timer))
                loop_timer_set(&farewells->timer, connection->deadline.at_us);
}

void farewells_skip(struct farewells *farewells, struct connection *connection) {
        loop_remove(farewells->loop, connection->fd, connection);
        descriptor_close(connection->fd);
        connection_free(connection);
}

void farewells_ready(struct farewells *farewells, struct connection *connection, uint32_t events) {
        char answer[ANSWER_MAX];
        ssize_t n;

        /* It has departed, and its farewell is sent when its turn comes. */
        if (!(connection->owner_bits & BIT_WAITING))
                return;

        /* Urgent data and queued errors are no answer to wait for, and would be reported until somebody reads them. */
        if (events & (EPOLLPRI | EPOLLERR | EPOLLHUP)) {
                stop_waiting(farewells, connection);
                return;
        }

        n = recv(connection->fd, answer, sizeof(answer), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                stop_waiting(farewells, connection);
}

bool farewells_hurry(struct farewells *farewells) {
        struct connection *connection = TAILQ_FIRST(&farewells->waiting);

        if (!connection)
                return false;

        stop_waiting(farewells, connection);
        return true;
}
