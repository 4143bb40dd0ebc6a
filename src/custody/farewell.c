/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/farewell.h"

#include <sys/epoll.h>

/* How long a peer may take to answer a farewell and hang up. */
#define WAITING_TIME_US (UINT64_C(5) * USEC_PER_SEC)

/* We wait only for the peer to hang up, and ignore what it sends before. Urgent data and queued errors end the wait, too: they
 * would be reported until somebody reads them. */
#define WAITING_EVENTS (EPOLLRDHUP | EPOLLPRI)

/* Of a connection's owner_bits: it is in the list of those that wait for their peer. */
#define BIT_WAITING 1

static void stop_waiting(struct farewells *farewells, struct connection *connection) {
        TAILQ_REMOVE(&farewells->waiting, connection, siblings);
        farewells->n_waiting--;
        loop_remove(farewells->loop, connection->fd, connection);
        disposal_close_told(farewells->disposal, connection->uid, connection->fd);
        connection_free(connection);
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

static void on_said(void *userdata, struct connection *connection, bool is_said, bool is_open) {
        struct farewells *farewells = userdata;

        farewells->n_saying--;
        farewells->statistics->total.farewells += is_said;
        if (!is_open) {
                connection_free(connection);
                return;
        }

        if (loop_add(farewells->loop, connection->fd, LOOP_CONNECTION, connection, WAITING_EVENTS) < 0) {
                disposal_close_told(farewells->disposal, connection->uid, connection->fd);
                connection_free(connection);
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

int farewells_init(struct farewells *farewells, struct loop *loop, struct statistics *statistics,
        struct disposal *disposal, size_t max) {
        *farewells = (struct farewells){
                .loop = loop,
                .statistics = statistics,
                .disposal = disposal,
                .max = max,
        };
        TAILQ_INIT(&farewells->waiting);
        disposal_on_said(disposal, on_said, farewells);
        return loop_timer_init(&farewells->timer, loop, on_timer, farewells);
}

void farewells_release(struct farewells *farewells) {
        disposal_settle(farewells->disposal);
        disposal_on_said(farewells->disposal, NULL, NULL);
        while (farewells_hurry(farewells))
                ;
        loop_timer_release(&farewells->timer);
}

void farewells_say(struct farewells *farewells, struct connection *connection) {
        loop_remove(farewells->loop, connection->fd, connection);
        if (connection_farewell(connection).size > 0) {
                farewells->n_saying++;
                disposal_say(farewells->disposal, connection, !farewells->in_hurry);
        } else {
                disposal_close(farewells->disposal, connection->uid, DISPOSAL_PASSED, connection->fd);
                connection_free(connection);
        }
}

void farewells_ready(struct farewells *farewells, struct connection *connection, uint32_t events) {
        /* Without this bit, it has departed, and its farewell is still to be sent. */
        if ((connection->owner_bits & BIT_WAITING) && events != 0)
                stop_waiting(farewells, connection);
}

bool farewells_hurry(struct farewells *farewells) {
        struct connection *connection = TAILQ_FIRST(&farewells->waiting);

        if (!connection)
                return false;

        stop_waiting(farewells, connection);
        return true;
}
