/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Why lookups miss: the last that happened to the label, one rule at a time. */

#include "caches.h"

#define SECOND USEC_PER_SEC
#define NOW    (100 * SECOND)

/* A row of steps; each lookup that is to miss says for which reason, and how many seconds ago it happened. */
enum verb {
        END,
        PARK,      /* a: endpoint, ttl */
        BIND,      /* a: destination, b: endpoint, ttl */
        TAKE_ENDP, /* a: endpoint: it is found, and handed over */
        TAKE_DEST, /* a: destination */
        LEND,      /* a: endpoint: it is found, and on its way */
        BACK,      /* what was lent comes back */
        USED,      /* what was taken last is not parked again */
        DIE,       /* a: endpoint of which the peer hangs up */
        FLUSH,     /* a: endpoint */
        EVICT,     /* all but number connections */
        DRAIN,     /* a: destination: its first binding is of an epoch that is over */
        WAIT,      /* number: seconds */
        EXPIRE,
        MISS_ENDP, /* a: endpoint, reason, number: seconds ago */
        MISS_DEST, /* a: destination */
        OVER_DEST, /* a: destination; who looks is of an epoch that is over */
};

struct step {
        enum verb verb;
        const char *a, *b;
        int number;
        enum reason reason;
        unsigned ttl; /* in seconds; 0 is 50 */
        uint64_t epoch;
        uid_t uid; /* 0 is USER */
};

static const struct story {
        const char *title;
        struct step steps[16];
} stories[] = {
        { "nothing was ever parked", { { MISS_ENDP, "e" }, { MISS_DEST, "d" } } },
        { "a connection expired, seen by a lookup",
                { { PARK, "e", .ttl = 2 }, { WAIT, .number = 5 },
                        { MISS_ENDP, "e", .reason = REASON_EXPIRED } } },
        { "a connection expired, and was let go of",
                { { PARK, "e", .ttl = 2 }, { WAIT, .number = 2 }, { EXPIRE }, { WAIT, .number = 5 },
                        { MISS_ENDP, "e", .number = 5, .reason = REASON_EXPIRED } } },
        { "the peer hung up",
                { { PARK, "e" }, { WAIT, .number = 3 }, { DIE, "e" }, { WAIT, .number = 4 },
                        { MISS_ENDP, "e", .number = 4, .reason = REASON_DEAD } } },
        { "evicted",
                { { PARK, "e" }, { PARK, "f" }, { EVICT, .number = 1 },
                        { MISS_ENDP, "e", .reason = REASON_EVICTED } } },
        { "flushed", { { PARK, "e" }, { FLUSH, "e" }, { MISS_ENDP, "e", .reason = REASON_FLUSHED } } },
        { "an agent has it, also on its way there",
                { { PARK, "e" }, { LEND, "e" }, { WAIT, .number = 1 },
                        { MISS_ENDP, "e", .number = 1, .reason = REASON_BUSY } } },
        { "an agent has it",
                { { PARK, "e" }, { TAKE_ENDP, "e" }, { WAIT, .number = 9 },
                        { MISS_ENDP, "e", .number = 9, .reason = REASON_BUSY } } },
        { "an agent has used it up",
                { { PARK, "e" }, { TAKE_ENDP, "e" }, { WAIT, .number = 9 }, { USED }, { WAIT, .number = 1 },
                        { MISS_ENDP, "e", .number = 1, .reason = REASON_USED } } },
        { "one agent has used its up, the other has its own",
                { { PARK, "e" }, { PARK, "e" }, { TAKE_ENDP, "e" }, { LEND, "e" }, { WAIT, .number = 1 },
                        { USED }, { MISS_ENDP, "e", .number = 1, .reason = REASON_BUSY } } },
        { "used up means nothing once it was parked again",
                { { PARK, "e" }, { TAKE_ENDP, "e" }, { PARK, "e", .ttl = 1 }, { USED },
                        { WAIT, .number = 1 }, { EXPIRE }, { MISS_ENDP, "e", .reason = REASON_EXPIRED } } },
        { "what comes back is there",
                { { PARK, "e" }, { LEND, "e" }, { BACK }, { FLUSH, "e" },
                        { MISS_ENDP, "e", .reason = REASON_FLUSHED } } },
        { "the last that happened counts",
                { { PARK, "e", .ttl = 2 }, { PARK, "e" }, { WAIT, .number = 2 }, { EXPIRE },
                        { WAIT, .number = 1 }, { TAKE_ENDP, "e" },
                        { MISS_ENDP, "e", .reason = REASON_BUSY } } },
        { "an endpoint and a destination of the same name are two things",
                { { PARK, "x" }, { FLUSH, "x" }, { MISS_DEST, "x" },
                        { MISS_ENDP, "x", .reason = REASON_FLUSHED } } },
        { "what others did is not told",
                { { PARK, "e" }, { FLUSH, "e" }, { MISS_ENDP, "e", .uid = 11 },
                        { MISS_ENDP, "e", .reason = REASON_FLUSHED } } },
        { "a destination is bound, and nothing was parked",
                { { BIND, "d", .b = "e" }, { MISS_DEST, "d" } } },
        { "a destination tells of its endpoint",
                { { BIND, "d", .b = "e" }, { PARK, "e" }, { TAKE_DEST, "d" },
                        { MISS_DEST, "d", .reason = REASON_BUSY },
                        { MISS_ENDP, "e", .reason = REASON_BUSY } } },
        { "a destination tells of the endpoint to which something happened last",
                { { BIND, "d", .b = "e1" }, { BIND, "d", .b = "e2" }, { PARK, "e1" }, { PARK, "e2" },
                        { FLUSH, "e2" }, { WAIT, .number = 1 }, { DIE, "e1" }, { WAIT, .number = 1 },
                        { MISS_DEST, "d", .number = 1, .reason = REASON_DEAD } } },
        { "binding and connection expire together",
                { { BIND, "d", .b = "e", .ttl = 2 }, { PARK, "e", .ttl = 2 }, { WAIT, .number = 2 },
                        { EXPIRE }, { WAIT, .number = 3 },
                        { MISS_DEST, "d", .number = 3, .reason = REASON_EXPIRED } } },
        { "the binding expired, and it would have led to a peer that hung up before",
                { { BIND, "d", .b = "e", .ttl = 4 }, { PARK, "e", .ttl = 4 }, { WAIT, .number = 1 },
                        { DIE, "e" }, { WAIT, .number = 4 }, { EXPIRE },
                        { MISS_DEST, "d", .number = 4, .reason = REASON_DEAD } } },
        { "the binding expired, and it would have led to what an agent has",
                { { BIND, "d", .b = "e", .ttl = 4 }, { PARK, "e", .ttl = 4 }, { TAKE_DEST, "d" },
                        { WAIT, .number = 5 }, { EXPIRE },
                        { MISS_DEST, "d", .number = 5, .reason = REASON_BUSY } } },
        { "the binding expired, and its connection is there",
                { { BIND, "d", .b = "e", .ttl = 2 }, { PARK, "e" }, { WAIT, .number = 3 },
                        { MISS_DEST, "d", .number = 1, .reason = REASON_EXPIRED }, { EXPIRE },
                        { WAIT, .number = 1 }, { MISS_DEST, "d", .number = 1, .reason = REASON_EXPIRED } } },
        { "the binding is of an epoch that is over, and its connection is there",
                { { BIND, "d", .b = "e" }, { PARK, "e" }, { DRAIN, "d" },
                        { MISS_DEST, "d", .reason = REASON_OUTDATED } } },
        { "another epoch has parked one",
                { { BIND, "d", .b = "e", .epoch = 1 }, { PARK, "e", .epoch = 1 }, { WAIT, .number = 1 },
                        { MISS_ENDP, "e", .number = 1, .reason = REASON_OUTDATED, .epoch = 2 },
                        { MISS_DEST, "d", .number = 1, .reason = REASON_OUTDATED, .epoch = 2 } } },
        { "what happened in another epoch is outdated",
                { { PARK, "e", .epoch = 1 }, { FLUSH, "e", .epoch = 1 },
                        { MISS_ENDP, "e", .reason = REASON_OUTDATED, .epoch = 2 },
                        { MISS_ENDP, "e", .reason = REASON_FLUSHED, .epoch = 1 } } },
        { "an agent of an epoch that is over",
                { { PARK, "e" }, { BIND, "d", .b = "e" }, { OVER_DEST, "d", .reason = REASON_OUTDATED } } },
};

static struct scope scope_of(const struct step *step) {
        return (struct scope){ step->uid > 0 ? step->uid : USER, step->epoch };
}

static void park_in(struct cache *cache, const struct step *step, uint64_t now) {
        uint64_t ttl = (step->ttl > 0 ? step->ttl : 50) * SECOND;
        const struct connection_details details = {
                .scope = scope_of(step),
                .saved_by = USER,
                .endpoint = slice_of(step->a),
                .ttl_us = ttl,
                .deadline_us = now + ttl,
                .fd = 1,
        };
        struct connection *connection;

        assert_int_equal(cache_save_endpoint(cache, &details, &connection), 0);
}

static void bind_in(struct cache *cache, const struct step *step, uint64_t now) {
        uint64_t ttl = (step->ttl > 0 ? step->ttl : 50) * SECOND;
        const struct binding_details details = {
                .scope = scope_of(step),
                .saved_by = USER,
                .destination = slice_of(step->a),
                .endpoint = slice_of(step->b),
                .ttl_us = ttl,
                .deadline_us = now + ttl,
        };

        assert_int_equal(cache_save_destination(cache, &details), 0);
}

static struct connection *first_of(struct cache *cache, const struct step *step) {
        struct label *label = label_find(cache, &cache->endpoints, scope_of(step), slice_of(step->a));

        assert_non_null(label);
        return TAILQ_FIRST(&label->connections);
}

static void drop_departed(struct cache *cache) {
        struct connection *connection;

        while ((connection = cache_next_departed(cache)))
                connection_free(connection);
}

static void check_story(const struct story *story, uint64_t history) {
        struct cache_limits limits = { .history = history };
        struct connection *connection, *lent[16];
        uint64_t now = NOW, misses[_LABEL_KIND_MAX] = {}, counted = 0;
        struct cache_taking taking = {};
        struct cache_miss miss;
        struct slice property;
        struct cache *cache;
        size_t n_lent = 0;

        assert_int_equal(cache_new(&cache, &cache_key, &limits), 0);
        for (const struct step *step = story->steps; step->verb != END; step++) {
                enum label_kind kind = step->verb == MISS_ENDP ? LABEL_ENDPOINT : LABEL_DESTINATION;

                cache_tell_time(cache, now);
                switch (step->verb) {
                case PARK:
                        park_in(cache, step, now);
                        continue;
                case BIND:
                        bind_in(cache, step, now);
                        continue;
                case TAKE_ENDP:
                case TAKE_DEST:
                case LEND:
                        connection = step->verb == TAKE_DEST
                                ? cache_find_destination(
                                          cache, scope_of(step), slice_of(step->a), now, &property)
                                : cache_find_endpoint(cache, scope_of(step), slice_of(step->a), now);
                        assert_non_null(connection);
                        if (step->verb == LEND) {
                                lent[n_lent++] = connection;
                                continue;
                        }
                        taking = cache_taking(cache, connection);
                        give(cache, connection);
                        now += 1; /* not in the same moment as what comes next */
                        continue;
                case BACK:
                        cache_take_back(cache, lent[--n_lent], now);
                        continue;
                case USED:
                        cache_note_used(cache, &taking, now);
                        continue;
                case DIE:
                        connection = first_of(cache, step);
                        cache_bury(cache, connection);
                        connection_free(connection);
                        continue;
                case FLUSH:
                        cache_let_go(cache, first_of(cache, step), DEPARTURE_FLUSHED);
                        continue;
                case EVICT:
                        limits.connections = (uint64_t) step->number;
                        cache_set_limits(cache, &limits);
                        continue;
                case DRAIN:
                        cache_drop(cache,
                                TAILQ_FIRST(&label_find(
                                        cache, &cache->destinations, scope_of(step), slice_of(step->a))
                                                     ->bindings));
                        continue;
                case WAIT:
                        now += (uint64_t) step->number * SECOND;
                        continue;
                case EXPIRE:
                        assert_false(cache_expire(cache, now, 100));
                        continue;
                case MISS_ENDP:
                        assert_null(cache_find_endpoint(cache, scope_of(step), slice_of(step->a), now));
                        break;
                case MISS_DEST:
                        assert_null(cache_find_destination(
                                cache, scope_of(step), slice_of(step->a), now, &property));
                        break;
                default:
                        break;
                }

                cache_explain_miss(
                        cache, kind, scope_of(step), slice_of(step->a), now, step->verb == OVER_DEST, &miss);
                misses[kind]++;
                if (history > 0 &&
                        (miss.reason != step->reason ||
                                (miss.ago_us / SECOND != (uint64_t) step->number && step->number > 0)))
                        fail_msg("%s: step %td missed because it was %s %g s ago", story->title,
                                step - story->steps, reason_name(miss.reason),
                                (double) miss.ago_us / SECOND);
                if (history == 0 && step->verb != OVER_DEST)
                        assert_int_equal(miss.reason, REASON_UNKNOWN);
        }

        /* Among the busiest, each miss has a reason, too. */
        for (unsigned kind = 0; kind < _LABEL_KIND_MAX; kind++) {
                const struct busiest *busiest = cache_busiest(cache, kind);

                for (size_t i = 0; i < busiest->n_rows; i++)
                        for (unsigned reason = 0; reason < _REASON_MAX; reason++)
                                counted += busiest->rows[i]->misses[reason];
        }
        assert_int_equal(counted, history > 0 ? misses[LABEL_DESTINATION] + misses[LABEL_ENDPOINT] : 0);
        assert_true(history == 0 || cache_counts(cache)->history_bytes > 0);

        while (n_lent > 0)
                give(cache, lent[--n_lent]);
        drop_departed(cache);
        empty_cache(cache);
}

TEST(test_stories) {
        for (size_t i = 0; i < ELEMENTSOF(stories); i++)
                check_story(&stories[i], 1000);
}

TEST(test_without_a_history) {
        for (size_t i = 0; i < ELEMENTSOF(stories); i++)
                check_story(&stories[i], 0);
}

/* A socket that is parked under another label is no longer parked under the first. */
TEST(test_replaced) {
        struct cache_limits limits = { .history = 1000 };
        struct connection_details details = { .scope.uid = USER,
                .saved_by = USER,
                .endpoint = SLICE("one"),
                .cookie = 7,
                .ttl_us = SECOND,
                .deadline_us = NOW + SECOND,
                .fd = 1 };
        struct connection *connection;
        struct cache_miss miss;
        struct cache *cache;

        assert_int_equal(cache_new(&cache, &cache_key, &limits), 0);
        cache_tell_time(cache, NOW);
        assert_int_equal(cache_save_endpoint(cache, &details, &connection), 0);
        details.endpoint = SLICE("another");
        assert_int_equal(cache_save_endpoint(cache, &details, &connection), 0);
        cache_explain_miss(cache, LABEL_ENDPOINT, details.scope, SLICE("one"), NOW, false, &miss);
        assert_int_equal(miss.reason, REASON_REPLACED);
        empty_cache(cache);
}

/* What is remembered takes its part of the memory, and no more; entries give way for it as for others. */
TEST(test_memory) {
        enum { BYTES = 1 << 20 };
        struct cache_limits limits = { .bytes = BYTES, .history = 1000000 };
        struct cache *cache;

        assert_int_equal(cache_new(&cache, &cache_key, &limits), 0);
        for (int i = 0; i < 50000; i++) {
                char label[32];

                (void) snprintf(label, sizeof(label), "label %d", i);
                cache_tell_time(cache, NOW + (uint64_t) i);
                bind_to(cache, USER, label, "", label, NOW, SECOND);
                park(cache, USER, label, i, NOW, SECOND);
                for (enum label_kind kind = 0; kind < _LABEL_KIND_MAX; kind++)
                        cache_explain_miss(cache, kind, (struct scope){ .uid = USER + 1 }, slice_of(label),
                                NOW, false, &(struct cache_miss){});
                drop_departed(cache);
                assert_true(cache_counts(cache)->history_bytes <= BYTES / 8);
                /* A row that a lookup gets is paid for by the next save. */
                assert_true(cache_counts(cache)->bytes + cache_counts(cache)->history_bytes <=
                        BYTES + 2 * busiest_row_bytes());
        }
        assert_true(cache_counts(cache)->history_bytes > BYTES / 10);
        empty_cache(cache);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_stories),
                cmocka_unit_test(test_without_a_history),
                cmocka_unit_test(test_replaced),
                cmocka_unit_test(test_memory),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
