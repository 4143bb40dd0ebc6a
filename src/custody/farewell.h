/* custody: farewells: a goodbye to the peer of a connection that goes, and some time for it to hang up */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cache/cache.h"
#include "custody/statistics.h"
#include "daemon/loop.h"
#include "daemon/timer.h"

struct farewells {
        struct loop *loop;
        struct statistics *statistics;
        struct connection_list waiting; /* first to time out first; `deadline.at_us` is when */
        size_t n_waiting;
        size_t max;
        struct loop_timer timer; /* for the first of them */
};

/* MAX connections may wait for their peer. LOOP and STATISTICS must outlive all of it. Returns negative errno. */
int farewells_init(
        struct farewells *farewells, struct loop *loop, struct statistics *statistics, size_t max);

/* Close what is left. */
void farewells_release(struct farewells *farewells);

/* Part with a connection that is watched and out of the cache: send its farewell, if it has one and its peer is still
 * there, and close it once the peer hangs up or has had its time. The record goes with it. Never waits. */
void farewells_say(struct farewells *farewells, struct connection *connection);

/* The same without a word and at once. */
void farewells_skip(struct farewells *farewells, struct connection *connection);

/* Something happened to a connection that is out of the cache; EVENTS as of epoll_wait(2). */
void farewells_ready(struct farewells *farewells, struct connection *connection, uint32_t events);

/* Wait no longer for the peer that has had most time. Returns false if none is waited for. */
bool farewells_hurry(struct farewells *farewells);
