/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* custody: the counters, and the log lines about them that Postfix's log tools know */
#pragma once

#include <stdint.h>
#include <time.h>

#include "cache/cache.h"
#include "custody/counters.h"
#include "daemon/journal.h"

/* All counters, since the daemon was first started: COUNTER(name, meaning). */
#define STATISTICS_COUNTERS(COUNTER)                                                                      \
        COUNTER(destination_hits, "lookups of a destination that hit")                                    \
        COUNTER(destination_misses, "lookups of a destination that missed")                               \
        COUNTER(endpoint_hits, "lookups of an endpoint that hit")                                         \
        COUNTER(endpoint_misses, "lookups of an endpoint that missed")                                    \
        COUNTER(deliveries_reused, "deliveries that found a connection")                                  \
        COUNTER(deliveries_missed, "deliveries that found none")                                          \
        COUNTER(connections_saved, "connections parked")                                                  \
        COUNTER(bindings_saved, "bindings saved or renewed")                                              \
        COUNTER(connections_expired, "connections expired")                                               \
        COUNTER(connections_evicted, "connections evicted at a limit")                                    \
        COUNTER(connections_flushed, "connections flushed on request")                                    \
        COUNTER(connections_outdated, "connections drained, for a change of configuration")               \
        COUNTER(connections_replaced, "connections parked whose socket was saved again")                  \
        COUNTER(connections_dead, "connections whose peer hung up or sent something")                     \
        COUNTER(connections_returned, "connections found, but not taken by the agent")                    \
        COUNTER(farewells, "farewells sent")                                                              \
        COUNTER(requests_refused, "requests answered with status 1 or 2, without misses")                 \
        COUNTER(agents_accepted, "agents that connected")                                                 \
        COUNTER(agents_dropped, "agents disconnected: stuck, with an endless request, or over the limit") \
        COUNTERS_OF_MISSES(COUNTER, destination_misses, "lookups of a destination that missed")           \
        COUNTERS_OF_MISSES(COUNTER, endpoint_misses, "lookups of an endpoint that missed")                \
        COUNTERS_OF_TIMES(COUNTER, reuse_idle, "connections found, by how long they had been parked")     \
        COUNTERS_OF_TIMES(COUNTER, expired_ago, "lookups that missed what had expired, by how long ago")  \
        COUNTERS_OF_TIMES(COUNTER, dead_idle,                                                             \
                "connections whose peer hung up or sent something, by how long they had been parked")

struct statistics_counters {
#define COUNTER(name, text) uint64_t name;
        STATISTICS_COUNTERS(COUNTER)
#undef COUNTER
};

struct statistics {
        struct statistics_counters total;
        struct statistics_counters reported; /* as of the last lines in the journal */
        time_t interval_start;
        uint64_t agents; /* connected; this one is of this process alone */
        /* The largest numbers at the same time in this interval. */
        uint64_t max_destinations;
        uint64_t max_endpoints;
        uint64_t max_connections;
};

enum statistics_time {
        STATISTICS_REUSE_IDLE,
        STATISTICS_EXPIRED_AGO,
        STATISTICS_DEAD_IDLE,
};

/* Count a lookup that missed, with its reason. */
void statistics_count_miss(
        struct statistics_counters *counters, enum label_kind kind, const struct cache_miss *miss);

/* Count a time in µs. */
void statistics_count_time(struct statistics_counters *counters, enum statistics_time what, uint64_t us);

/* Make the reasons come to the number of misses, in counters that somebody else has counted: the process before may not have
 * known reasons. */
void statistics_settle(struct statistics_counters *counters);

/* Update the largest numbers, after a save. */
void statistics_note(struct statistics *statistics, const struct cache_counts *counts);

/* Log what happened in this interval, without lines that have nothing to report, and begin a new interval at NOW. */
void statistics_report(struct statistics *statistics, struct journal *journal, time_t now);

/* Return the percentage of HITS among HITS and MISSES. */
unsigned statistics_percent(uint64_t hits, uint64_t misses);
