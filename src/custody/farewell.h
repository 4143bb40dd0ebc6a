/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* custody: farewells: has the farewell sent on a connection, and gives the peer some time to hang up */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cache/cache.h"
#include "custody/disposal.h"
#include "custody/statistics.h"
#include "daemon/loop.h"
#include "daemon/timer.h"

struct farewells {
        struct loop *loop;
        struct statistics *statistics;
        struct disposal *disposal;
        struct connection_list
                waiting; /* for their peer, in the order of their timeouts, `deadline.at_us` */
        size_t n_waiting;
        size_t n_saying; /* with the disposal, which sends the farewell */
        bool in_hurry;   /* those that are told now get no time to answer */
        size_t max;
        struct loop_timer timer; /* for the first of them */
};

/* At most MAX connections wait for their peer. LOOP, STATISTICS and DISPOSAL must outlive the farewells. Returns negative
 * errno. */
int farewells_init(struct farewells *farewells, struct loop *loop, struct statistics *statistics,
        struct disposal *disposal, size_t max);

/* Close the connections that are left, after the farewells that do not take too long. Waits for those. */
void farewells_release(struct farewells *farewells);

/* Close a watched connection that is out of the cache: send its farewell, if it has one and the peer is still there, and
 * close it when the peer hangs up or its time is over. Frees the record. Never waits. */
void farewells_say(struct farewells *farewells, struct connection *connection);

/* Handle EVENTS of epoll_wait(2) on a connection that waits for its peer. */
void farewells_ready(struct farewells *farewells, struct connection *connection, uint32_t events);

/* Close the connection that has waited longest for its peer. Returns false if there is none. */
bool farewells_hurry(struct farewells *farewells);
