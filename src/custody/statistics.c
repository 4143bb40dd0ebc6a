/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/statistics.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/cleanup.h"

/* Counters that come in a row lie in a row. */
static uint64_t *counter_at(struct statistics_counters *counters, size_t offset, size_t i) {
        return (uint64_t *) (void *) ((char *) counters + offset) + i;
}

#define FIRST(name) offsetof(struct statistics_counters, name)

_Static_assert(FIRST(destination_misses_used) - FIRST(destination_misses_unknown) ==
                        REASON_USED * sizeof(uint64_t) &&
                FIRST(destination_misses_outdated) - FIRST(destination_misses_unknown) ==
                        REASON_OUTDATED * sizeof(uint64_t),
        "the counters of misses are in the order of the reasons");

static const size_t misses_at[_LABEL_KIND_MAX] = {
        [LABEL_DESTINATION] = FIRST(destination_misses_unknown),
        [LABEL_ENDPOINT] = FIRST(endpoint_misses_unknown),
};

void statistics_count_miss(
        struct statistics_counters *counters, enum label_kind kind, const struct cache_miss *miss) {
        *(kind == LABEL_DESTINATION ? &counters->destination_misses : &counters->endpoint_misses) += 1;
        *counter_at(counters, misses_at[kind], miss->reason) += 1;
        if (miss->reason == REASON_EXPIRED)
                statistics_count_time(counters, STATISTICS_EXPIRED_AGO, miss->ago_us);
}

void statistics_count_time(struct statistics_counters *counters, enum statistics_time what, uint64_t us) {
#define BOUND(name, us, ...) us,
        static const uint64_t bounds[] = { TIME_BOUNDS(BOUND, ) };
#undef BOUND
        static const size_t times_at[] = {
                [STATISTICS_REUSE_IDLE] = FIRST(reuse_idle_100ms),
                [STATISTICS_EXPIRED_AGO] = FIRST(expired_ago_100ms),
                [STATISTICS_DEAD_IDLE] = FIRST(dead_idle_100ms),
        };
        size_t i = 0;

        while (i < ELEMENTSOF(bounds) && us > bounds[i])
                i++;
        *counter_at(counters, times_at[what], i) += 1;
        *counter_at(counters, times_at[what], ELEMENTSOF(bounds) + 1) += us;
}

static void settle(struct statistics_counters *counters, enum label_kind kind, uint64_t misses) {
        uint64_t left = misses;

        for (enum reason reason = REASON_UNKNOWN + 1; reason < _REASON_MAX; reason++) {
                uint64_t *counter = counter_at(counters, misses_at[kind], reason);

                *counter = MIN(*counter, left);
                left -= *counter;
        }
        *counter_at(counters, misses_at[kind], REASON_UNKNOWN) = left;
}

void statistics_settle(struct statistics_counters *counters) {
        settle(counters, LABEL_DESTINATION, counters->destination_misses);
        settle(counters, LABEL_ENDPOINT, counters->endpoint_misses);
}

void statistics_note(struct statistics *statistics, const struct cache_counts *counts) {
        statistics->max_destinations = MAX(statistics->max_destinations, counts->destinations);
        statistics->max_endpoints = MAX(statistics->max_endpoints, counts->endpoints);
        statistics->max_connections = MAX(statistics->max_connections, counts->connections);
}

unsigned statistics_percent(uint64_t hits, uint64_t misses) {
        return hits + misses > 0 ? (unsigned) (hits * 100 / (hits + misses)) : 0;
}

static void report_lookups(struct journal *journal, const char *what, uint64_t hits, uint64_t misses) {
        if (hits + misses > 0)
                journal_say(journal, STATISTICS, NULL,
                        "statistics: %s lookup hits=%" PRIu64 " miss=%" PRIu64 " success=%u%%", what, hits,
                        misses, statistics_percent(hits, misses));
}

void statistics_report(struct statistics *statistics, struct journal *journal, time_t now) {
        const struct statistics_counters *total = &statistics->total, *before = &statistics->reported;
        uint64_t destination_hits = total->destination_hits - before->destination_hits;
        uint64_t destination_misses = total->destination_misses - before->destination_misses;
        uint64_t endpoint_hits = total->endpoint_hits - before->endpoint_hits;
        uint64_t endpoint_misses = total->endpoint_misses - before->endpoint_misses;
        uint64_t dead = total->connections_dead - before->connections_dead;
        uint64_t evicted = total->connections_evicted - before->connections_evicted;
        bool any_maximum = statistics->max_destinations > 0 || statistics->max_endpoints > 0 ||
                statistics->max_connections > 0;
        char start[32];
        struct tm tm;

        if (destination_hits + destination_misses + endpoint_hits + endpoint_misses + dead + evicted > 0 ||
                any_maximum) {
                /* "Mon DD HH:MM:SS" as in ctime(3), whatever the locale. */
                static const char months[][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug",
                        "Sep", "Oct", "Nov", "Dec" };

                if (localtime_r(&statistics->interval_start, &tm)) {
                        (void) snprintf(start, sizeof(start), "%s %2d %02d:%02d:%02d", months[tm.tm_mon],
                                tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
                        journal_say(journal, STATISTICS, NULL, "statistics: start interval %s", start);
                }
        }

        report_lookups(journal, "domain", destination_hits, destination_misses);
        report_lookups(journal, "address", endpoint_hits, endpoint_misses);
        if (any_maximum)
                journal_say(journal, STATISTICS, NULL,
                        "statistics: max simultaneous domains=%" PRIu64 " addresses=%" PRIu64
                        " connection=%" PRIu64,
                        statistics->max_destinations, statistics->max_endpoints,
                        statistics->max_connections);
        if (dead + evicted > 0)
                journal_say(journal, UNUSED, NULL,
                        "statistics: connections dead=%" PRIu64 " evicted=%" PRIu64, dead, evicted);

        statistics->reported = statistics->total;
        statistics->interval_start = now;
        statistics->max_destinations = statistics->max_endpoints = statistics->max_connections = 0;
}
