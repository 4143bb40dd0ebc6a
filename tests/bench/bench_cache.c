/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The cost of the cache alone, without any system call: a cycle as an agent makes it (find a destination's connection and
 * take it, bind the destination again, park the connection again) with 1,000 to 1,000,000 connections that each have
 * a destination, a binding and an endpoint of their own. Descriptors are just numbers. */

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cache/cache.h"

#define ROUNDS       7
#define RUNS         3
#define CYCLES_TIMED UINT64_C(200000)

#define TTL_US (UINT64_C(3600) * USEC_PER_SEC)

/* Goals of the project; --check makes those that do not depend on the machine's mood binding. */
#define GOAL_NS       300.0
#define GOAL_RATIO    2.0
#define GOAL_BYTES    400.0
#define GOAL_WORST_US 2000.0

static const char property[] = "rset_ok=yes, stamp=1718000000, size=52428800, feat=8BITMIME";
static const char binding_text[] = "host=mx1.example.org, addr=192.0.2.1, port=25, best=yes, 0";

enum operation { FIND, SAVE_DESTINATION, SAVE_ENDPOINT, _OPERATION_MAX };

static const char *const operation_names[_OPERATION_MAX] = { "find+give", "save_dest", "save_endp" };

struct bench {
        struct cache *cache;
        uint64_t now_us;
        uint64_t random;
        char destination[41];
        char endpoint[41];
        struct timing *timing;
};

/* How long each single operation took, in ns: the least of some runs that do the very same, so that what remains is the
 * operation's own and not the machine's (an interrupt, a page of memory seen for the first time by the host). */
struct timing {
        enum operation *operations;
        float *ns;
        size_t n;
        size_t at;
};

/* Where in a label its number stands. */
#define NUMBER_AT 12

static void set_number(char *label, uint64_t number) {
        for (char *p = label + NUMBER_AT + 8; p > label + NUMBER_AT; number >>= 4)
                *--p = "0123456789abcdef"[number & 15];
}

static void choose(struct bench *bench, uint64_t number) {
        set_number(bench->destination, number);
        set_number(bench->endpoint, number);
}

static uint64_t next_random(struct bench *bench) {
        bench->random ^= bench->random << 13;
        bench->random ^= bench->random >> 7;
        bench->random ^= bench->random << 17;
        return bench->random;
}

static void find(struct bench *bench) {
        struct connection *connection;
        struct slice binding_property;

        connection = cache_find_destination(bench->cache, (struct scope){},
                (struct slice){ bench->destination, 40 }, bench->now_us, &binding_property);
        if (!connection)
                abort();
        cache_give(bench->cache, connection);
        connection_free(connection);
}

static void save_destination(struct bench *bench) {
        const struct binding_details details = {
                .destination = { bench->destination, 40 },
                .property = SLICE(binding_text),
                .endpoint = { bench->endpoint, 40 },
                .ttl_us = TTL_US,
                .deadline_us = bench->now_us + TTL_US,
        };

        if (cache_save_destination(bench->cache, &details) < 0)
                abort();
}

static void save_endpoint(struct bench *bench) {
        const struct connection_details details = {
                .endpoint = { bench->endpoint, 40 },
                .property = SLICE(property),
                .ttl_us = TTL_US,
                .deadline_us = bench->now_us + TTL_US,
                .fd = 1000,
        };
        struct connection *connection;

        if (cache_save_endpoint(bench->cache, &details, &connection) < 0)
                abort();
}

static void (*const operations[_OPERATION_MAX])(
        struct bench *bench) = { find, save_destination, save_endpoint };

/* On this thread's own clock: others on the machine do not count. */
static double now_ns(void) {
        struct timespec ts;

        (void) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
        return (double) ts.tv_sec * 1e9 + (double) ts.tv_nsec;
}

static void run_timed(struct bench *bench, enum operation operation) {
        struct timing *timing = bench->timing;
        double start = now_ns();
        float ns;

        operations[operation](bench);
        ns = (float) (now_ns() - start);

        if (timing->at == timing->n)
                timing->n++;
        else
                ns = MIN(ns, timing->ns[timing->at]);
        timing->operations[timing->at] = operation;
        timing->ns[timing->at++] = ns;
}

#if !__GLIBC_PREREQ(2, 33)
#define mallinfo2 mallinfo /* with int for size_t */
#endif

static size_t memory_in_use(void) {
        struct mallinfo2 info = mallinfo2();

        return (size_t) info.uordblks + (size_t) info.hblkhd;
}

static int compare(const void *a, const void *b) {
        double x = *(const double *) a, y = *(const double *) b;

        return (x > y) - (x < y);
}

/* Median cost of an operation in ns, all three of a cycle alike, without the cost of choosing labels. */
static double measure(struct bench *bench, uint64_t n, bool is_random) {
        double costs[ROUNDS];
        uint64_t n_cycles = 200000, at = 0;

        for (unsigned round = 0; round < ROUNDS; round++) {
                double start, overhead;
                uint64_t from = at;

                bench->random = round + 1;
                start = now_ns();
                for (uint64_t i = 0; i < n_cycles; i++) {
                        choose(bench, is_random ? next_random(bench) % n : from++ % n);
                        __asm__ volatile("" ::"r"(bench) : "memory");
                }
                overhead = now_ns() - start;

                bench->random = round + 1;
                start = now_ns();
                for (uint64_t i = 0; i < n_cycles; i++) {
                        choose(bench, is_random ? next_random(bench) % n : at++ % n);
                        bench->now_us++;
                        find(bench);
                        save_destination(bench);
                        save_endpoint(bench);
                }
                costs[round] = (now_ns() - start - overhead) / (double) (n_cycles * _OPERATION_MAX);
        }

        qsort(costs, ROUNDS, sizeof(costs[0]), compare);
        return costs[ROUNDS / 2];
}

static void fill(struct bench *bench, uint64_t n, struct timing *timing) {
        static const struct siphash_key key = { 0x0706050403020100, 0x0f0e0d0c0b0a0908 };

        *bench = (struct bench){ .now_us = USEC_PER_SEC, .random = 1, .timing = timing };
        memcpy(bench->destination, "smtp:domain-00000000.customers.example:25:", 40);
        memcpy(bench->endpoint, "smtp:mx-a01-00000000.2001:db8:85a3::7:25:", 40);
        if (cache_new(&bench->cache, &key, &(struct cache_limits){ .history = 65536 }) < 0)
                abort();

        for (uint64_t i = 0; i < n; i++) {
                bench->now_us++;
                choose(bench, i);
                run_timed(bench, SAVE_DESTINATION);
                run_timed(bench, SAVE_ENDPOINT);
        }
}

/* Let everything expire, in batches as the daemon does. Returns ns per entry. */
static double empty(struct bench *bench, uint64_t n) {
        struct connection *connection;
        double start = now_ns();

        while (cache_expire(bench->cache, UINT64_MAX - 1, 256))
                while ((connection = cache_next_departed(bench->cache)))
                        connection_free(connection);
        while ((connection = cache_next_departed(bench->cache)))
                connection_free(connection);

        return (now_ns() - start) / (double) (2 * n);
}

/* What a load from memory costs that the one before it must have brought the address of, at random within SIZE bytes:
 * what all of this is made of, where the machine's caches end. */
static double measure_load(size_t size) {
        static const unsigned n_loads = 1000000;
        size_t n = size / 64, *lines = malloc(n * 64), at = 0;
        struct bench bench = { .random = 1 };
        double start;

        if (!lines)
                abort();
        /* Sattolo: one cycle through all lines. */
        for (size_t i = 0; i < n; i++)
                lines[i * 8] = i * 8;
        for (size_t i = n - 1; i > 0; i--) {
                size_t j = next_random(&bench) % i, other = lines[j * 8];

                lines[j * 8] = lines[i * 8];
                lines[i * 8] = other;
        }

        start = now_ns();
        for (unsigned i = 0; i < n_loads; i++)
                at = lines[at];
        __asm__ volatile("" ::"r"(at));
        start = now_ns() - start;
        free(lines);
        return start / n_loads;
}

/* A cache that is filled and then used at random, each operation timed. Returns its bytes per entry beyond labels and
 * properties. */
static double time_operations(struct bench *bench, uint64_t n, struct timing *timing) {
        size_t before = memory_in_use();
        double bytes;

        timing->at = 0;
        fill(bench, n, timing);
        bytes = (double) (memory_in_use() - before) / (double) n - 40 - 40 - (double) strlen(property) -
                (double) strlen(binding_text);
        for (uint64_t i = 0; i < CYCLES_TIMED; i++) {
                choose(bench, next_random(bench) % n);
                bench->now_us++;
                for (unsigned operation = 0; operation < _OPERATION_MAX; operation++)
                        run_timed(bench, operation);
        }
        return bytes;
}

static void print_goal(const char *what, double figure, const char *unit, double goal) {
        printf("%-58s %6.1f %-5s (goal %.0f: %s)\n", what, figure, unit, goal,
                figure <= goal ? "met" : "not met");
}

int main(int argc, char *argv[]) {
        static const uint64_t sizes[] = { 1000, 10000, 100000, 1000000 };
        bool is_check = argc > 1 && strcmp(argv[1], "--check") == 0;
        double first = 0, random = 0, bytes = 0, worst = 0, load = 0;

        printf("%9s %11s %9s %7s %9s %8s %13s  ", "entries", "sequential", "random", "ratio", "a load",
                "expiry", "bytes/entry");
        for (unsigned i = 0; i < _OPERATION_MAX; i++)
                printf(" worst %-9s", operation_names[i]);
        printf("\n");

        for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
                uint64_t n = sizes[i];
                size_t n_timed = 2 * n + CYCLES_TIMED * _OPERATION_MAX;
                struct timing timing = {
                        .operations = malloc(n_timed * sizeof(enum operation)),
                        .ns = malloc(n_timed * sizeof(float)),
                };
                double sequential, expiry, worst_here[_OPERATION_MAX] = {};
                struct bench bench;

                if (!timing.operations || !timing.ns)
                        abort();
                for (unsigned run = 0; run < RUNS; run++) {
                        bytes = time_operations(&bench, n, &timing);
                        if (run + 1 < RUNS) {
                                (void) empty(&bench, n);
                                cache_free(bench.cache);
                        }
                }
                for (size_t j = 0; j < timing.n; j++)
                        worst_here[timing.operations[j]] =
                                MAX(worst_here[timing.operations[j]], (double) timing.ns[j] / 1e3);

                sequential = measure(&bench, n, false);
                random = measure(&bench, n, true);
                load = measure_load((size_t) ((bytes + 200) * (double) n));
                if (i == 0)
                        first = random;
                expiry = empty(&bench, n);
                cache_free(bench.cache);
                free(timing.operations);
                free(timing.ns);

                printf("%9" PRIu64 " %8.0f ns %6.0f ns %6.2fx %6.0f ns %5.0f ns %13.0f  ", n, sequential,
                        random, random / first, load, expiry, bytes);
                for (unsigned operation = 0; operation < _OPERATION_MAX; operation++) {
                        printf(" %12.1f µs", worst_here[operation]);
                        worst = MAX(worst, worst_here[operation]);
                }
                printf("\n");
                fflush(stdout);
        }

        printf("\nTimes are an operation's, each cycle being three (find_dest with give, save_dest, "
               "save_endp): this thread's\n"
               "CPU time, median of %d rounds. A load: one that depends on the last, at random in as much "
               "memory. Bytes: of a\n"
               "connection with a destination, a binding and an endpoint of its own, less those of labels "
               "and properties.\n"
               "Worst: of all operations, growing included, the least of %d runs.\n\n",
                ROUNDS, RUNS);
        print_goal("ns an operation at 1,000,000, at random", random, "ns", GOAL_NS);
        print_goal("its cost at 1,000 times", random / first, "", GOAL_RATIO);
        printf("%-58s %6.1f loads\n", "which is as much as", random / load);
        print_goal("bytes an entry", bytes, "bytes", GOAL_BYTES);
        print_goal("worst single operation", worst, "µs", GOAL_WORST_US);

        return is_check && bytes > GOAL_BYTES ? EXIT_FAILURE : EXIT_SUCCESS;
}
