/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the cache does, one rule at a time. */

#include "caches.h"

#include <errno.h>

#define SECOND USEC_PER_SEC
#define NOW    (100 * SECOND)
#define LONG   (50 * SECOND)

/* A history is a row of steps; each find says what it is to come up with. */
enum verb {
        END,
        PARK,      /* a: endpoint, number: descriptor, ttl */
        BIND,      /* a: destination, b: endpoint, property */
        FIND_ENDP, /* a: endpoint, number: descriptor or -1 */
        FIND_DEST, /* a: destination, number: descriptor or -1 */
        WAIT,      /* number: seconds */
        EXPIRE,    /* number: connections that depart */
};

struct step {
        enum verb verb;
        const char *a, *b;
        int number;
        unsigned ttl; /* in seconds; 0 is 50 */
        const char *property;
        uid_t uid; /* 0 is USER */
};

static const struct history {
        const char *title;
        struct step steps[16];
} histories[] = {
        { "nothing is found in an empty cache",
                { { FIND_ENDP, "e", .number = -1 }, { FIND_DEST, "d", .number = -1 } } },
        { "an endpoint is first in, first out",
                { { PARK, "e", .number = 1 }, { PARK, "e", .number = 2 }, { PARK, "e", .number = 3 },
                        { FIND_ENDP, "e", .number = 1 }, { FIND_ENDP, "e", .number = 2 },
                        { PARK, "e", .number = 4 }, { FIND_ENDP, "e", .number = 3 },
                        { FIND_ENDP, "e", .number = 4 }, { FIND_ENDP, "e", .number = -1 } } },
        { "a connection that was found is gone",
                { { PARK, "e", .number = 1 }, { FIND_ENDP, "e", .number = 1 },
                        { FIND_ENDP, "e", .number = -1 } } },
        { "endpoints are told apart by every byte",
                { { PARK, "ab", .number = 1 }, { FIND_ENDP, "a", .number = -1 },
                        { FIND_ENDP, "abc", .number = -1 }, { FIND_ENDP, "", .number = -1 },
                        { FIND_ENDP, "ab", .number = 1 } } },
        { "an empty label is a label", { { PARK, "", .number = 1 }, { FIND_ENDP, "", .number = 1 } } },
        { "an endpoint and a destination of the same name are two things",
                { { PARK, "x", .number = 1 }, { FIND_DEST, "x", .number = -1 }, { BIND, "x", .b = "x" },
                        { FIND_DEST, "x", .number = 1 } } },
        { "a destination tries its endpoints in the order in which it was bound to them",
                { { BIND, "d", .b = "e1" }, { BIND, "d", .b = "e2" }, { PARK, "e2", .number = 2 },
                        { PARK, "e1", .number = 1 }, { FIND_DEST, "d", .number = 1 },
                        { FIND_DEST, "d", .number = 2 }, { FIND_DEST, "d", .number = -1 } } },
        { "renewing a binding leaves it at its place",
                { { BIND, "d", .b = "e1" }, { BIND, "d", .b = "e2" }, { BIND, "d", .b = "e1" },
                        { PARK, "e2", .number = 2 }, { PARK, "e1", .number = 1 },
                        { FIND_DEST, "d", .number = 1 } } },
        { "a binding with other properties is another one, behind",
                { { BIND, "d", .b = "e1", .property = "p" }, { BIND, "d", .b = "e2" },
                        { BIND, "d", .b = "e1", .property = "q" }, { PARK, "e1", .number = 1 },
                        { PARK, "e2", .number = 2 }, { FIND_DEST, "d", .number = 1 },
                        { FIND_DEST, "d", .number = 2 } } },
        { "a binding outlives its connections",
                { { BIND, "d", .b = "e" }, { PARK, "e", .number = 1 }, { FIND_DEST, "d", .number = 1 },
                        { FIND_DEST, "d", .number = -1 }, { PARK, "e", .number = 2 },
                        { FIND_DEST, "d", .number = 2 } } },
        { "two destinations share an endpoint",
                { { BIND, "d1", .b = "e" }, { BIND, "d2", .b = "e" }, { PARK, "e", .number = 1 },
                        { FIND_DEST, "d2", .number = 1 }, { FIND_DEST, "d1", .number = -1 } } },
        { "a connection ends with its time to live",
                { { PARK, "e", .number = 1, .ttl = 2 }, { WAIT, .number = 1 },
                        { FIND_ENDP, "e", .number = 1 }, { PARK, "e", .number = 2, .ttl = 2 },
                        { WAIT, .number = 2 }, { FIND_ENDP, "e", .number = -1 } } },
        { "behind one that has ended, one that has not is found",
                { { PARK, "e", .number = 1, .ttl = 2 }, { PARK, "e", .number = 2, .ttl = 9 },
                        { WAIT, .number = 5 }, { FIND_ENDP, "e", .number = 2 },
                        { FIND_ENDP, "e", .number = -1 } } },
        { "a binding ends with its time to live",
                { { BIND, "d", .b = "e", .ttl = 2 }, { PARK, "e", .number = 1 }, { WAIT, .number = 2 },
                        { FIND_DEST, "d", .number = -1 }, { FIND_ENDP, "e", .number = 1 } } },
        { "a binding that is renewed ends later",
                { { BIND, "d", .b = "e", .ttl = 2 }, { PARK, "e", .number = 1 }, { WAIT, .number = 1 },
                        { BIND, "d", .b = "e", .ttl = 2 }, { WAIT, .number = 1 }, { EXPIRE, .number = 0 },
                        { FIND_DEST, "d", .number = 1 } } },
        { "renewing can also bring the end nearer",
                { { BIND, "d", .b = "e", .ttl = 20 }, { BIND, "d", .b = "e", .ttl = 1 },
                        { PARK, "e", .number = 1 }, { WAIT, .number = 2 },
                        { FIND_DEST, "d", .number = -1 } } },
        { "expiry takes what has ended, and only that",
                { { PARK, "e", .number = 1, .ttl = 3 }, { PARK, "f", .number = 2, .ttl = 1 },
                        { PARK, "e", .number = 3, .ttl = 2 }, { WAIT, .number = 2 }, { EXPIRE, .number = 2 },
                        { FIND_ENDP, "e", .number = 1 } } },
        { "users do not find what others saved",
                { { PARK, "e", .number = 1 }, { BIND, "d", .b = "e" },
                        { FIND_ENDP, "e", .number = -1, .uid = 11 },
                        { FIND_DEST, "d", .number = -1, .uid = 11 }, { BIND, "d", .b = "e", .uid = 11 },
                        { FIND_DEST, "d", .number = -1, .uid = 11 }, { FIND_DEST, "d", .number = 1 } } },
        { "users have endpoints of the same name",
                { { PARK, "e", .number = 1 }, { PARK, "e", .number = 2, .uid = 11 },
                        { FIND_ENDP, "e", .number = 2, .uid = 11 }, { FIND_ENDP, "e", .number = 1 } } },
};

static void check_history(const struct history *history) {
        struct cache *cache = new_cache(0, 0);
        uint64_t now = NOW;

        for (const struct step *step = history->steps; step->verb != END; step++) {
                uint64_t ttl = (step->ttl > 0 ? step->ttl : 50) * SECOND;
                uid_t uid = step->uid > 0 ? step->uid : USER;
                int n = 0, found;

                switch (step->verb) {
                case PARK:
                        park(cache, uid, step->a, step->number, now, ttl);
                        continue;
                case BIND:
                        bind_to(cache, uid, step->a, step->property ? step->property : "", step->b, now,
                                ttl);
                        continue;
                case WAIT:
                        now += (uint64_t) step->number * SECOND;
                        continue;
                case EXPIRE:
                        assert_false(cache_expire(cache, now, 100));
                        while (departed(cache, DEPARTURE_EXPIRED) >= 0)
                                n++;
                        found = n;
                        break;
                case FIND_ENDP:
                        found = take_endpoint(cache, uid, step->a, now);
                        break;
                default:
                        found = take_destination(cache, uid, step->a, now);
                }
                if (found != step->number)
                        fail_msg("%s: step %td came to %d instead of %d", history->title,
                                step - history->steps, found, step->number);
        }
        empty_cache(cache);
}

TEST(test_histories) {
        for (size_t i = 0; i < ELEMENTSOF(histories); i++)
                check_history(&histories[i]);
}

TEST(test_what_is_kept) {
        struct cache *cache = new_cache(0, 0);
        struct connection *connection = park(cache, USER, "endpoint", 5, NOW, LONG);
        struct slice property;

        assert_true(slice_equal(label_text(connection->endpoint), SLICE("endpoint")));
        assert_true(slice_equal(connection_property(connection), SLICE("property")));
        assert_true(slice_equal(connection_farewell(connection), SLICE("QUIT")));
        assert_int_equal(connection->endpoint->scope.uid, USER);
        assert_int_equal(connection->deadline.at_us, NOW + LONG);
        assert_int_equal(deadline_ttl(&connection->deadline), LONG);

        bind_to(cache, USER, "destination", "binding", "endpoint", NOW, LONG);
        assert_ptr_equal(cache_find_destination(
                                 cache, (struct scope){ .uid = USER }, SLICE("destination"), NOW, &property),
                connection);
        assert_true(slice_equal(property, SLICE("binding")));
        give(cache, connection);
        empty_cache(cache);
}

/* The same user and the same labels: what was saved in one epoch is found in no other. */
TEST(test_epochs) {
        static const struct scope before = { USER, 1 }, after = { USER, 2 };
        struct cache *cache = new_cache(0, 0);
        struct connection_details parked = {
                .scope = before, .endpoint = SLICE("e"), .ttl_us = LONG, .deadline_us = NOW + LONG, .fd = 1
        };
        const struct binding_details bound = { .scope = before,
                .destination = SLICE("d"),
                .endpoint = SLICE("e"),
                .ttl_us = LONG,
                .deadline_us = NOW + LONG };
        struct connection *connection;
        struct slice property;

        assert_int_equal(cache_save_endpoint(cache, &parked, &connection), 0);
        assert_int_equal(cache_save_destination(cache, &bound), 0);
        assert_null(cache_find_endpoint(cache, after, SLICE("e"), NOW));
        assert_null(cache_find_destination(cache, after, SLICE("d"), NOW, &property));
        assert_int_equal(take_destination(cache, USER, "d", NOW), -1);

        parked.scope = after;
        parked.fd = 2;
        assert_int_equal(cache_save_endpoint(cache, &parked, &connection), 0);
        assert_null(cache_find_destination(cache, after, SLICE("d"), NOW, &property));
        assert_int_equal(give(cache, cache_find_destination(cache, before, SLICE("d"), NOW, &property)), 1);
        assert_int_equal(give(cache, cache_find_endpoint(cache, after, SLICE("e"), NOW)), 2);
        empty_cache(cache);
}

TEST(test_counts) {
        struct cache *cache = new_cache(0, 0);
        const struct cache_counts *counts = cache_counts(cache);
        struct connection *lent;

        assert_int_equal(cache_next_deadline(cache), USEC_INFINITY);
        park(cache, USER, "e", 1, NOW, LONG);
        park(cache, USER, "e", 2, NOW, LONG);
        park(cache, USER, "f", 3, NOW, 2 * SECOND);
        bind_to(cache, USER, "d", "", "e", NOW, LONG);
        bind_to(cache, USER, "d", "", "g", NOW, SECOND);
        assert_int_equal(counts->connections, 3);
        assert_int_equal(counts->endpoints, 2);
        assert_int_equal(counts->bindings, 2);
        assert_int_equal(counts->destinations, 1);
        assert_int_equal(cache_next_deadline(cache), NOW + SECOND);

        lent = cache_find_endpoint(cache, (struct scope){ .uid = USER }, SLICE("f"), NOW);
        assert_int_equal(counts->lent, 1);
        assert_int_equal(counts->connections, 2);
        assert_int_equal(counts->endpoints, 1);
        give(cache, lent);

        assert_false(cache_expire(cache, NOW + LONG, 100));
        assert_int_equal(departed(cache, DEPARTURE_EXPIRED), 1);
        assert_int_equal(departed(cache, DEPARTURE_EXPIRED), 2);
        assert_int_equal(counts->connections, 0);
        assert_int_equal(counts->endpoints, 0);
        assert_int_equal(counts->bindings, 0);
        assert_int_equal(counts->destinations, 0);
        assert_int_equal(counts->bytes, 0);
        empty_cache(cache);
}

TEST(test_expiry_keeps_to_its_budget) {
        struct cache *cache = new_cache(0, 0);

        for (int i = 0; i < 10; i++) {
                park(cache, USER, "e", i, NOW, SECOND);
                bind_to(cache, USER, "d", (const char[]){ (char) ('a' + i), 0 }, "e", NOW, SECOND);
        }
        assert_true(cache_expire(cache, NOW + SECOND, 7));
        assert_int_equal(cache_counts(cache)->connections, 3);
        assert_true(cache_expire(cache, NOW + SECOND, 7));
        assert_int_equal(cache_counts(cache)->connections, 0);
        assert_int_equal(cache_counts(cache)->bindings, 6);
        assert_false(cache_expire(cache, NOW + SECOND, 7));
        assert_int_equal(cache_counts(cache)->bindings, 0);
        empty_cache(cache);
}

TEST(test_taken_back_to_its_place) {
        struct cache *cache = new_cache(0, 0);
        struct connection *first, *second;
        uint64_t id;

        first = park(cache, USER, "e", 1, NOW, LONG);
        park(cache, USER, "e", 2, NOW, LONG);
        park(cache, USER, "e", 3, NOW, LONG);
        id = first->id;
        assert_ptr_equal(cache_find_endpoint(cache, (struct scope){ .uid = USER }, SLICE("e"), NOW), first);
        second = cache_find_endpoint(cache, (struct scope){ .uid = USER }, SLICE("e"), NOW);
        assert_int_equal(second->fd, 2);

        /* In the other order than they went. */
        cache_take_back(cache, second, NOW + 1);
        cache_take_back(cache, first, NOW + 1);
        assert_int_equal(first->id, id);
        assert_int_equal(first->deadline.at_us, NOW + LONG);
        assert_int_equal(cache_next_deadline(cache), NOW + LONG);
        for (int fd = 1; fd <= 3; fd++)
                assert_int_equal(take_endpoint(cache, USER, "e", NOW), fd);
        empty_cache(cache);
}

/* The last one of an endpoint to which nothing is bound: the endpoint waits for it. */
TEST(test_taken_back_alone) {
        struct cache *cache = new_cache(0, 0);
        struct connection *connection = park(cache, USER, "e", 1, NOW, LONG);

        assert_ptr_equal(
                cache_find_endpoint(cache, (struct scope){ .uid = USER }, SLICE("e"), NOW), connection);
        assert_null(cache_find_endpoint(cache, (struct scope){ .uid = USER }, SLICE("e"), NOW));
        assert_int_equal(cache_counts(cache)->endpoints, 0);
        cache_take_back(cache, connection, NOW);
        assert_int_equal(take_endpoint(cache, USER, "e", NOW), 1);
        empty_cache(cache);
}

TEST(test_taken_back_after_its_end) {
        struct cache *cache = new_cache(0, 0);
        struct connection *connection = park(cache, USER, "e", 1, NOW, SECOND);

        (void) cache_find_endpoint(cache, (struct scope){ .uid = USER }, SLICE("e"), NOW);
        cache_expire(cache, NOW + SECOND, 100);
        assert_int_equal(departed(cache, DEPARTURE_EXPIRED), -1);
        assert_int_equal(cache_next_deadline(cache), USEC_INFINITY); /* nobody need wake up for it */
        cache_take_back(cache, connection, NOW + SECOND);
        assert_int_equal(departed(cache, DEPARTURE_EXPIRED), 1);
        empty_cache(cache);
}

/* Expiry that comes by meanwhile, for others, does not cost a lent connection its place. */
TEST(test_taken_back_after_others_expired) {
        struct cache *cache = new_cache(0, 0);
        struct connection *connection;

        connection = park(cache, USER, "e", 1, NOW, LONG);
        park(cache, USER, "e", 2, NOW + 1, LONG);
        bind_to(cache, USER, "d", "", "e", NOW, SECOND);
        assert_ptr_equal(
                cache_find_endpoint(cache, (struct scope){ .uid = USER }, SLICE("e"), NOW), connection);
        cache_expire(cache, NOW + SECOND, 100);
        assert_int_equal(cache_counts(cache)->bindings, 0);
        cache_take_back(cache, connection, NOW + SECOND);
        assert_int_equal(departed(cache, DEPARTURE_LIMIT), -1);
        assert_int_equal(cache_next_deadline(cache), NOW + LONG);
        assert_int_equal(take_endpoint(cache, USER, "e", NOW), 1);
        empty_cache(cache);
}

TEST(test_removed) {
        struct cache *cache = new_cache(0, 0);
        struct connection *connection;

        park(cache, USER, "e", 1, NOW, LONG);
        connection = park(cache, USER, "e", 2, NOW, LONG);
        park(cache, USER, "e", 3, NOW, LONG);
        cache_remove(cache, connection);
        connection_free(connection);
        assert_int_equal(take_endpoint(cache, USER, "e", NOW), 1);
        assert_int_equal(take_endpoint(cache, USER, "e", NOW), 3);
        empty_cache(cache);
}

TEST(test_let_go) {
        struct cache *cache = new_cache(0, 0);
        struct connection *connection;

        park(cache, USER, "e", 1, NOW, LONG);
        connection = park(cache, USER, "e", 2, NOW, LONG);
        cache_let_go(cache, connection, DEPARTURE_FLUSHED);
        assert_int_equal(departed(cache, DEPARTURE_FLUSHED), 2);
        assert_true(cache_let_one_go(cache, DEPARTURE_FLUSHED));
        assert_false(cache_let_one_go(cache, DEPARTURE_FLUSHED));
        assert_int_equal(departed(cache, DEPARTURE_FLUSHED), 1);
        empty_cache(cache);
}

TEST(test_limit_of_connections) {
        struct cache *cache = new_cache(3, 0);
        struct connection *lent;

        park(cache, USER, "a", 1, NOW, 5 * SECOND);
        park(cache, USER, "b", 2, NOW, 2 * SECOND);
        park(cache, USER, "c", 3, NOW, 9 * SECOND);
        /* The one nearest to its end, not the oldest. */
        park(cache, USER, "d", 4, NOW, SECOND);
        assert_int_equal(departed(cache, DEPARTURE_LIMIT), 2);
        assert_int_equal(departed(cache, DEPARTURE_LIMIT), -1);
        assert_int_equal(cache_counts(cache)->connections, 3);

        /* A lent one counts: its descriptor is there. */
        lent = cache_find_endpoint(cache, (struct scope){ .uid = USER }, SLICE("d"), NOW);
        park(cache, USER, "e", 5, NOW, 8 * SECOND);
        assert_int_equal(departed(cache, DEPARTURE_LIMIT), 1);
        assert_int_equal(give(cache, lent), 4);

        cache_set_limits(cache, &(struct cache_limits){ .connections = 1 });
        assert_int_equal(departed(cache, DEPARTURE_LIMIT), 5);
        assert_int_equal(take_endpoint(cache, USER, "c", NOW), 3);
        empty_cache(cache);
}

TEST(test_limit_of_bytes) {
        struct cache *cache = new_cache(0, 20000);
        const struct cache_counts *counts = cache_counts(cache);
        char label[16];

        for (int i = 0; i < 2000; i++) {
                (void) snprintf(label, sizeof(label), "%d", i);
                bind_to(cache, USER, label, "", label, NOW + (uint64_t) i, LONG);
                park(cache, USER, label, i, NOW + (uint64_t) i, LONG);
                assert_true(counts->bytes <= 20000);
                /* The newcomer is there. */
                assert_int_equal(take_destination(cache, USER, label, NOW), i);
                park(cache, USER, label, i, NOW + (uint64_t) i, LONG);
                while (departed(cache, DEPARTURE_LIMIT) >= 0)
                        ;
        }
        assert_true(counts->bindings_let_go > 0);
        assert_true(counts->bindings > 10);
        empty_cache(cache);
}

/* At a limit the user who holds most gives way, with what is nearest to its end of that. */
TEST(test_share_of_connections) {
        struct cache *cache = new_cache(6, 0);

        for (int i = 0; i < 2; i++)
                park(cache, USER, "mine", i, NOW, SECOND + (uint64_t) i);
        for (int i = 0; i < 4; i++)
                park(cache, 11, "theirs", 10 + i, NOW, LONG - (uint64_t) i);
        for (int i = 0; i < 20; i++) {
                park(cache, 11, "theirs", 20 + i, NOW, 2 * LONG + (uint64_t) i);
                assert_int_equal(departed(cache, DEPARTURE_LIMIT), i < 4 ? 13 - i : 16 + i);
                assert_int_equal(cache_gave_way(cache), 11);
        }
        /* Who has less than the share gets it. */
        park(cache, USER, "mine", 2, NOW, SECOND);
        assert_int_equal(departed(cache, DEPARTURE_LIMIT), 36);
        /* Who has the share is among those who hold most. */
        park(cache, USER, "mine", 3, NOW, LONG);
        assert_int_equal(departed(cache, DEPARTURE_LIMIT), 0);
        assert_int_equal(cache_gave_way(cache), USER);
        empty_cache(cache);
}

TEST(test_share_of_bytes) {
        struct cache *cache = new_cache(0, 4096);
        char label[16];

        bind_to(cache, USER, "d", "", "e", NOW, SECOND);
        park(cache, USER, "e", 1, NOW, SECOND);
        for (int i = 0; i < 300; i++) {
                (void) snprintf(label, sizeof(label), "%d", i);
                park(cache, 11, label, 100 + i, NOW, LONG);
                bind_to(cache, 11, label, "", label, NOW, LONG);
                assert_true(cache_counts(cache)->bytes <= 4096);
        }
        assert_true(cache_counts(cache)->bindings_let_go > 200);
        assert_int_equal(take_destination(cache, USER, "d", NOW), 1);
        empty_cache(cache);
}

/* What is lent cannot be evicted: who holds most of it does not push out others, who have less than their share. */
TEST(test_share_while_lent) {
        struct cache *cache = new_cache(4, 0);
        struct connection *lent[4];

        for (int i = 0; i < 4; i++)
                lent[i] = park(cache, 11, "e", i, NOW, LONG);
        for (int i = 0; i < 4; i++)
                assert_ptr_equal(
                        cache_find_endpoint(cache, (struct scope){ .uid = 11 }, SLICE("e"), NOW), lent[i]);
        park(cache, USER, "e", 10, NOW, SECOND);
        park(cache, USER, "e", 11, NOW, LONG);
        assert_null(cache_next_departed(cache));
        park(cache, USER, "e", 12, NOW, LONG);
        assert_int_equal(departed(cache, DEPARTURE_LIMIT), 10);
        for (int i = 0; i < 4; i++)
                assert_int_equal(give(cache, lent[i]), i);
        empty_cache(cache);
}

/* Where users share, what is found is everybody's, and what is held is still each one's own. */
TEST(test_share_where_users_share) {
        struct cache *cache = new_cache(4, 0);

        for (int i = 0; i < 10; i++) {
                struct connection_details details = {
                        .scope.uid = (uid_t) -1,
                        .saved_by = i < 2 ? USER : 11,
                        .endpoint = SLICE("e"),
                        .ttl_us = LONG,
                        .deadline_us = NOW + LONG + (uint64_t) i,
                        .fd = i,
                };
                struct connection *connection;

                assert_int_equal(cache_save_endpoint(cache, &details, &connection), 0);
                if (i >= 4)
                        assert_int_equal(departed(cache, DEPARTURE_LIMIT), i - 2);
        }
        assert_int_equal(take_endpoint(cache, (uid_t) -1, "e", NOW), 0);
        empty_cache(cache);
}

/* Who renews a binding has it on its account from then on. */
TEST(test_renewed_by_another) {
        struct binding_details details = {
                .scope.uid = (uid_t) -1,
                .saved_by = USER,
                .destination = SLICE("d"),
                .endpoint = SLICE("e"),
                .ttl_us = LONG,
                .deadline_us = NOW + LONG,
        };
        struct cache *cache = new_cache(0, 0);
        struct accounts *accounts = cache_accounts(cache);
        uint64_t bytes;

        assert_int_equal(cache_save_destination(cache, &details), 0);
        bytes = account_held(accounts_find(accounts, USER), ACCOUNT_BYTES);
        assert_true(bytes > 0);
        details.saved_by = 11;
        assert_int_equal(cache_save_destination(cache, &details), 0);
        assert_null(accounts_find(accounts, USER));
        assert_int_equal(account_held(accounts_find(accounts, 11), ACCOUNT_BYTES), bytes);
        assert_false(cache_expire(cache, NOW + LONG, 10));
        assert_int_equal(accounts->by_uid.n_entries, 0);
        empty_cache(cache);
}

static int save_socket(struct cache *cache, uid_t uid, const char *endpoint, int fd, uint64_t cookie,
        struct connection **ret) {
        struct connection_details details = {
                .scope.uid = uid,
                .saved_by = uid,
                .endpoint = slice_of(endpoint),
                .ttl_us = LONG,
                .deadline_us = NOW + LONG,
                .cookie = cookie,
                .fd = fd,
        };

        return cache_save_endpoint(cache, &details, ret);
}

TEST(test_one_socket_once) {
        struct cache *cache = new_cache(2, 0);
        struct connection *connection, *lent;

        assert_int_equal(save_socket(cache, USER, "a", 1, 77, &connection), 0);
        assert_int_equal(save_socket(cache, USER, "b", 2, 78, &connection), 0);
        assert_int_equal(save_socket(cache, 11, "a", 3, 77, &connection), -EEXIST);
        assert_null(cache_next_departed(cache));

        /* As a new one; and nobody is evicted for it. */
        assert_int_equal(save_socket(cache, USER, "b", 4, 77, &connection), 0);
        assert_int_equal(departed(cache, DEPARTURE_REPLACED), 1);
        assert_null(cache_next_departed(cache));
        assert_int_equal(take_endpoint(cache, USER, "a", NOW), -1);
        assert_int_equal(take_endpoint(cache, USER, "b", NOW), 2);

        /* One that is lent is the other user's until it is gone; saved again meanwhile, it does not come back. */
        lent = cache_find_endpoint(cache, (struct scope){ .uid = USER }, SLICE("b"), NOW);
        assert_int_equal(save_socket(cache, 11, "a", 5, 77, &connection), -EEXIST);
        assert_int_equal(save_socket(cache, USER, "b", 6, 77, &connection), 0);
        cache_take_back(cache, lent, NOW);
        assert_int_equal(departed(cache, DEPARTURE_REPLACED), 4);
        assert_int_equal(take_endpoint(cache, USER, "b", NOW), 6);
        assert_int_equal(save_socket(cache, 11, "a", 7, 77, &connection), 0);
        cache_remove(cache, connection);
        connection_free(connection);
        assert_int_equal(save_socket(cache, USER, "a", 8, 77, &connection), 0);
        empty_cache(cache);
}

/* What is larger than the limit pushes everything out, and is there. */
TEST(test_limit_smaller_than_one_entry) {
        struct cache *cache = new_cache(0, 10);

        park(cache, USER, "e", 1, NOW, LONG);
        assert_int_equal(departed(cache, DEPARTURE_LIMIT), -1);
        park(cache, USER, "e", 2, NOW, LONG);
        assert_int_equal(departed(cache, DEPARTURE_LIMIT), 1);
        assert_int_equal(take_endpoint(cache, USER, "e", NOW), 2);
        empty_cache(cache);
}

/* One destination does not make lookups long. */
TEST(test_limit_of_bindings) {
        struct cache *cache = new_cache(0, 0);
        char endpoint[16];

        for (int i = 0; i < CACHE_DESTINATION_BINDINGS_MAX + 10; i++) {
                (void) snprintf(endpoint, sizeof(endpoint), "%d", i);
                /* Number 500 is nearest to its end. */
                bind_to(cache, USER, "d", "", endpoint, NOW, i == 500 ? SECOND : LONG + (uint64_t) i);
                park(cache, USER, endpoint, i, NOW, LONG);
        }
        assert_int_equal(cache_counts(cache)->bindings, CACHE_DESTINATION_BINDINGS_MAX);
        assert_int_equal(cache_counts(cache)->bindings_let_go, 10);
        /* 500, and then 0 to 8 have gone. */
        assert_int_equal(take_destination(cache, USER, "d", NOW), 9);
        empty_cache(cache);
}

/* After a restart entries come in any order, and their old order is kept. */
TEST(test_taken_over) {
        static const struct {
                uint64_t id, ttl, deadline;
        } old[] = { { 5, 10, 30 }, { 2, 10, 20 }, { 9, 10, 60 }, { 3, 40, 50 }, { 7, 40, 55 } };
        static const uint64_t ids[] = { 2, 3, 5, 7, 9 };
        struct cache *cache = new_cache(0, 0);
        struct connection *connection;

        for (size_t i = 0; i < ELEMENTSOF(old); i++) {
                struct connection_details parked = {
                        .id = old[i].id,
                        .scope.uid = USER,
                        .saved_by = USER,
                        .endpoint = SLICE("e"),
                        .ttl_us = old[i].ttl,
                        .deadline_us = old[i].deadline,
                };
                struct binding_details binding = {
                        .id = 10 + old[i].id,
                        .scope.uid = USER,
                        .saved_by = USER,
                        .destination = SLICE("d"),
                        .property = { (const char *) &ids[i], 1 },
                        .endpoint = SLICE("e"),
                        .ttl_us = old[i].ttl,
                        .deadline_us = old[i].deadline,
                };

                assert_int_equal(cache_save_endpoint(cache, &parked, &connection), 0);
                assert_int_equal(connection->id, old[i].id);
                assert_int_equal(cache_save_destination(cache, &binding), 0);
        }
        assert_int_equal(cache_next_deadline(cache), 20);

        /* New ones are younger than all of them. */
        assert_true(park(cache, USER, "e", 0, 0, 100)->id > 19);
        for (size_t i = 0; i < ELEMENTSOF(ids); i++) {
                struct slice property;

                connection = cache_find_destination(
                        cache, (struct scope){ .uid = USER }, SLICE("d"), 10, &property);
                assert_int_equal(connection->id, ids[i]);
                /* The first binding is the one with the lowest id, third in the order above. */
                assert_int_equal(*property.data, (char) ids[1]);
                give(cache, connection);
        }
        empty_cache(cache);
}

TEST(test_many_expired_in_front) {
        struct cache *cache = new_cache(0, 0);
        unsigned lookups = 0;

        for (int i = 0; i < 500; i++)
                park(cache, USER, "e", i, NOW, SECOND);
        park(cache, USER, "e", 500, NOW, LONG);
        /* A lookup does a bounded part of the work, and sooner or later it hits. */
        while (take_endpoint(cache, USER, "e", NOW + SECOND) != 500)
                assert_true(++lookups < 10);
        for (int i = 0; i < 500; i++)
                assert_int_equal(departed(cache, DEPARTURE_EXPIRED), i);
        empty_cache(cache);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_histories),
                cmocka_unit_test(test_what_is_kept),
                cmocka_unit_test(test_epochs),
                cmocka_unit_test(test_counts),
                cmocka_unit_test(test_expiry_keeps_to_its_budget),
                cmocka_unit_test(test_taken_back_to_its_place),
                cmocka_unit_test(test_taken_back_alone),
                cmocka_unit_test(test_taken_back_after_its_end),
                cmocka_unit_test(test_taken_back_after_others_expired),
                cmocka_unit_test(test_removed),
                cmocka_unit_test(test_let_go),
                cmocka_unit_test(test_limit_of_connections),
                cmocka_unit_test(test_limit_of_bytes),
                cmocka_unit_test(test_share_of_connections),
                cmocka_unit_test(test_share_of_bytes),
                cmocka_unit_test(test_share_while_lent),
                cmocka_unit_test(test_share_where_users_share),
                cmocka_unit_test(test_renewed_by_another),
                cmocka_unit_test(test_one_socket_once),
                cmocka_unit_test(test_limit_smaller_than_one_entry),
                cmocka_unit_test(test_limit_of_bindings),
                cmocka_unit_test(test_taken_over),
                cmocka_unit_test(test_many_expired_in_front),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
