/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* custody: the names of the counters that come in rows: misses by reason, and times by their length */
#pragma once

/* One for each reason, in the order of enum reason: COUNTER(name, meaning). */
#define COUNTERS_OF_MISSES(COUNTER, name, text)                                           \
        COUNTER(name##_unknown, text ": nothing is remembered of the label")              \
        COUNTER(name##_expired, text ": the last that happened is that it expired")       \
        COUNTER(name##_dead, text ": that the peer hung up or sent something")            \
        COUNTER(name##_evicted, text ": that it was evicted at a limit")                  \
        COUNTER(name##_flushed, text ": that it was flushed on request")                  \
        COUNTER(name##_replaced, text ": that its socket was parked under another label") \
        COUNTER(name##_outdated, text ": that happened in another epoch")                 \
        COUNTER(name##_busy, text ": that an agent took it")                              \
        COUNTER(name##_used, text ": that an agent took it, and did not park it again")

/* The lengths of times that are told apart, each up to this many µs: BOUND(name, µs, ...). Longer ones come after them. */
#define TIME_BOUNDS(BOUND, ...)             \
        BOUND(100ms, 100000, __VA_ARGS__)   \
        BOUND(200ms, 200000, __VA_ARGS__)   \
        BOUND(500ms, 500000, __VA_ARGS__)   \
        BOUND(1s, 1000000, __VA_ARGS__)     \
        BOUND(2s, 2000000, __VA_ARGS__)     \
        BOUND(5s, 5000000, __VA_ARGS__)     \
        BOUND(10s, 10000000, __VA_ARGS__)   \
        BOUND(20s, 20000000, __VA_ARGS__)   \
        BOUND(30s, 30000000, __VA_ARGS__)   \
        BOUND(60s, 60000000, __VA_ARGS__)   \
        BOUND(120s, 120000000, __VA_ARGS__) \
        BOUND(300s, 300000000, __VA_ARGS__) \
        BOUND(600s, 600000000, __VA_ARGS__)

#define COUNTER_OF_TIMES(bound, us, COUNTER, name, text) COUNTER(name##_##bound, text ", up to " #bound)

/* One for each length, for longer ones, and the sum of all. */
#define COUNTERS_OF_TIMES(COUNTER, name, text)             \
        TIME_BOUNDS(COUNTER_OF_TIMES, COUNTER, name, text) \
        COUNTER(name##_longer, text ", longer")            \
        COUNTER(name##_us, text ": the sum of all times, in µs")
