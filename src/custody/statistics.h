/* custody: what is counted, and the lines about it that Postfix's log tools know */
#pragma once

#include <stdint.h>
#include <time.h>

#include "cache/cache.h"
#include "daemon/journal.h"

/* Everything that is counted, since the daemon was first started. COUNTER(name, what it counts). */
#define STATISTICS_COUNTERS(COUNTER)                                                            \
        COUNTER(destination_hits, "lookups of a destination that hit")                          \
        COUNTER(destination_misses, "lookups of a destination that missed")                     \
        COUNTER(endpoint_hits, "lookups of an endpoint that hit")                               \
        COUNTER(endpoint_misses, "lookups of an endpoint that missed")                          \
        COUNTER(connections_saved, "connections parked")                                        \
        COUNTER(bindings_saved, "bindings made or renewed")                                     \
        COUNTER(connections_expired, "connections let go at their end")                         \
        COUNTER(connections_evicted, "connections let go at a limit")                           \
        COUNTER(connections_flushed, "connections let go on request")                           \
        COUNTER(connections_dead, "connections whose peer hung up or spoke")                    \
        COUNTER(connections_returned, "connections that an agent asked for and did not take")   \
        COUNTER(farewells, "farewells sent")                                                    \
        COUNTER(requests_refused, "requests answered with a status of 1 or 2, misses left out") \
        COUNTER(agents_accepted, "agents that connected")                                       \
        COUNTER(agents_dropped, "agents cut off: stuck, endless, or over the limit")

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
        /* Most at the same time in this interval. */
        uint64_t max_destinations;
        uint64_t max_endpoints;
        uint64_t max_connections;
};

/* Note how full the cache is, after something was saved. */
void statistics_note(struct statistics *statistics, const struct cache_counts *counts);

/* Write what happened since the last time to the journal, each line only if it has something to say, and begin a new
 * interval at NOW. */
void statistics_report(struct statistics *statistics, struct journal *journal, time_t now);

/* Of HITS and MISSES together, how many in a hundred were hits. */
unsigned statistics_percent(uint64_t hits, uint64_t misses);
