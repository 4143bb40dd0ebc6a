/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Long random histories of the cache, next to a model that has nothing but arrays and looks at all of them each time. */

#include "caches.h"

#define CONNECTIONS_MAX 20000 /* in one history */
#define BINDINGS_MAX    4000
#define LABELS          12
#define USERS           2
#define CLASSES         5

enum model_state { PARKED, LENT, GONE };

/* In the order in which they were saved, which is all there is to "first in". */
static struct {
        enum model_state state;
        uid_t uid;
        unsigned endpoint;
        uint64_t at_us;
        bool was_due; /* its turn came while it was lent, at a limit */
        bool seen;    /* by the walk */
        bool stays;   /* parked since the walk began */
        struct connection *connection;
} connections[CONNECTIONS_MAX];
static size_t n_connections;

static struct {
        bool is_gone;
        uid_t uid;
        unsigned destination, endpoint, property;
        uint64_t at_us;
        bool seen;
        bool stays;
} bindings[BINDINGS_MAX];
static size_t n_bindings;

static int expected_departed[CONNECTIONS_MAX];
static enum departure expected_why[CONNECTIONS_MAX];
static size_t n_departed;

static struct cache *cache;
static uint64_t now, seed, limit;

static uint64_t choose(uint64_t n) {
        return next_random(&seed) % n;
}

static const char *label(unsigned i) {
        static const char *const labels[] = { "", "a", "b", "ab", "ba", "abc", "example.org", "example.com",
                "smtp:192.0.2.1:25", "smtp:192.0.2.2:25", "x", "y" };

        return labels[i % ELEMENTSOF(labels)];
}

/* Times to live differ in their last digit and the clock moves in tens, so no two entries end at the same time. */
static uint64_t choose_ttl(void) {
        uint64_t class = choose(CLASSES);

        return 100 * (class * class + 1) + class;
}

static void model_depart(size_t i, enum departure why) {
        connections[i].state = GONE;
        expected_departed[n_departed] = (int) i;
        expected_why[n_departed++] = why;
}

/* Nobody, or all. */
#define ALL USERS

static bool is_of(size_t i, uid_t uid) {
        return uid == ALL || connections[i].uid == uid;
}

static size_t nearest(enum model_state state, uid_t uid) {
        size_t first = SIZE_MAX;

        for (size_t i = 0; i < n_connections; i++)
                if (connections[i].state == state && is_of(i, uid) &&
                        (first == SIZE_MAX || connections[i].at_us < connections[first].at_us))
                        first = i;
        return first;
}

static uint64_t count_of(enum model_state state, uid_t uid) {
        uint64_t n = 0;

        for (size_t i = 0; i < n_connections; i++)
                n += connections[i].state == state && is_of(i, uid);
        return n;
}

static uint64_t count(enum model_state state) {
        return count_of(state, ALL);
}

static uint64_t held(uid_t uid) {
        return count_of(PARKED, uid) + count_of(LENT, uid);
}

/* A user's connection that is nearest to its end goes, if it has one that is not lent. */
static bool model_evict(uid_t uid) {
        size_t first = nearest(PARKED, uid);

        for (size_t i = 0; i < n_connections; i++)
                if (connections[i].state == LENT && is_of(i, uid) &&
                        (first == SIZE_MAX || connections[i].at_us < connections[first].at_us))
                        connections[i].was_due = true;
        if (first == SIZE_MAX)
                return false;
        model_depart(first, DEPARTURE_LIMIT);
        return true;
}

/* Two users: who then holds more gives way, or, if that is all lent, the other one, but not below its share. */
static void model_make_room(uid_t uid) {
        while (limit > 0 && held(ALL) >= limit) {
                uid_t other = 1 - uid, first = held(uid) + 1 >= held(other) ? uid : other;
                uint64_t n_users = (uint64_t) (held(0) > 0) + (held(1) > 0);

                if (model_evict(first))
                        continue;
                if (first == uid && held(other) <= held(uid))
                        break;
                if (held(1 - first) == 0 || held(1 - first) < limit / n_users || !model_evict(1 - first))
                        break;
        }
}

static void act_park(void) {
        uint64_t ttl = choose_ttl();
        uid_t uid = (uid_t) choose(USERS);
        unsigned endpoint = (unsigned) choose(LABELS);

        if (n_connections == CONNECTIONS_MAX)
                return;

        model_make_room(uid);
        connections[n_connections].state = PARKED;
        connections[n_connections].uid = uid;
        connections[n_connections].endpoint = endpoint;
        connections[n_connections].at_us = now + ttl;
        connections[n_connections].was_due = connections[n_connections].seen =
                connections[n_connections].stays = false;
        connections[n_connections].connection =
                park(cache, uid, label(endpoint), (int) n_connections, now, ttl);
        n_connections++;
}

static void act_bind(void) {
        uint64_t ttl = choose_ttl();
        uid_t uid = (uid_t) choose(USERS);
        unsigned destination = (unsigned) choose(LABELS), endpoint = (unsigned) choose(LABELS),
                 property = (unsigned) choose(3);
        size_t i = 0;

        while (i < n_bindings &&
                (bindings[i].is_gone || bindings[i].uid != uid || bindings[i].destination != destination ||
                        bindings[i].endpoint != endpoint || bindings[i].property != property))
                i++;
        if (i == BINDINGS_MAX)
                return;
        if (i == n_bindings) {
                n_bindings++;
                bindings[i].is_gone = bindings[i].seen = bindings[i].stays = false;
                bindings[i].uid = uid;
                bindings[i].destination = destination;
                bindings[i].endpoint = endpoint;
                bindings[i].property = property;
        }
        bindings[i].at_us = now + ttl;
        bind_to(cache, uid, label(destination), label(property), label(endpoint), now, ttl);
}

/* The first connection of an endpoint that has not ended; those in front of it depart. */
static size_t model_lend(uid_t uid, unsigned endpoint) {
        for (size_t i = 0; i < n_connections; i++) {
                if (connections[i].state != PARKED || connections[i].uid != uid ||
                        connections[i].endpoint != endpoint)
                        continue;
                if (connections[i].at_us > now) {
                        connections[i].state = LENT;
                        connections[i].stays = false;
                        return i;
                }
                model_depart(i, DEPARTURE_EXPIRED);
        }
        return SIZE_MAX;
}

static void check_found(const struct connection *found, size_t expected) {
        assert_int_equal(found ? found->fd : -1, expected == SIZE_MAX ? -1 : (int) expected);
        if (found && choose(3) > 0) {
                give(cache, connections[expected].connection);
                connections[expected].state = GONE;
        }
}

static void act_find_endpoint(void) {
        uid_t uid = (uid_t) choose(USERS);
        unsigned endpoint = (unsigned) choose(LABELS);

        check_found(cache_find_endpoint(cache, (struct scope){ .uid = uid }, slice_of(label(endpoint)), now),
                model_lend(uid, endpoint));
}

static void act_find_destination(void) {
        uid_t uid = (uid_t) choose(USERS);
        unsigned destination = (unsigned) choose(LABELS);
        size_t expected = SIZE_MAX, binding = 0;
        struct connection *found;
        struct slice property;

        for (; binding < n_bindings; binding++) {
                if (bindings[binding].is_gone || bindings[binding].uid != uid ||
                        bindings[binding].destination != destination || bindings[binding].at_us <= now)
                        continue;
                expected = model_lend(uid, bindings[binding].endpoint);
                if (expected != SIZE_MAX)
                        break;
        }
        found = cache_find_destination(
                cache, (struct scope){ .uid = uid }, slice_of(label(destination)), now, &property);
        if (found)
                assert_true(slice_equal(property, slice_of(label(bindings[binding].property))));
        check_found(found, expected);
}

/* A lent one, whichever, comes back or is handed over. */
static void act_return(void) {
        size_t i = choose(n_connections + 1);

        while (i < n_connections && connections[i].state != LENT)
                i++;
        if (i >= n_connections)
                return;

        if (choose(4) == 0) {
                give(cache, connections[i].connection);
                connections[i].state = GONE;
                return;
        }
        cache_take_back(cache, connections[i].connection, now);
        if (connections[i].at_us <= now)
                model_depart(i, DEPARTURE_EXPIRED);
        else if (connections[i].was_due)
                model_depart(i, DEPARTURE_LIMIT);
        else
                connections[i].state = PARKED;
}

static void act_remove(void) {
        size_t i = choose(n_connections + 1);

        while (i < n_connections && connections[i].state != PARKED)
                i++;
        if (i >= n_connections)
                return;
        cache_remove(cache, connections[i].connection);
        connection_free(connections[i].connection);
        connections[i].state = GONE;
}

static void act_expire(void) {
        size_t first;

        while ((first = nearest(PARKED, ALL)) != SIZE_MAX && connections[first].at_us <= now)
                model_depart(first, DEPARTURE_EXPIRED);
        for (size_t i = 0; i < n_bindings; i++)
                bindings[i].is_gone = bindings[i].is_gone || bindings[i].at_us <= now;
        assert_false(cache_expire(cache, now, UINT32_MAX));
        assert_true(cache_next_deadline(cache) > now);
}

static void check_departed(void) {
        for (size_t i = 0; i < n_departed; i++)
                assert_int_equal(departed(cache, expected_why[i]), expected_departed[i]);
        assert_null(cache_next_departed(cache));
        n_departed = 0;
}

static void check_counts(void) {
        const struct cache_counts *counts = cache_counts(cache);
        uint64_t n = 0;

        assert_int_equal(counts->connections, count(PARKED));
        assert_int_equal(counts->lent, count(LENT));
        for (size_t i = 0; i < n_bindings; i++)
                n += !bindings[i].is_gone;
        assert_int_equal(counts->bindings, n);
        assert_true(counts->bytes > 0 || (n == 0 && count(PARKED) + count(LENT) == 0));
}

static void act(void) {
        static void (*const actions[])(void) = { act_park, act_park, act_park, act_bind, act_bind,
                act_find_endpoint, act_find_destination, act_find_destination, act_return, act_return,
                act_remove, act_expire };

        now += 10 * (1 + choose(3));
        actions[choose(ELEMENTSOF(actions))]();
        check_departed();
}

static void begin(uint64_t history, uint64_t connection_limit) {
        seed = history + 1;
        now = 1000;
        limit = connection_limit;
        n_connections = n_bindings = n_departed = 0;
        cache = new_cache(limit, 0);
}

static void end(void) {
        for (size_t i = 0; i < n_connections; i++)
                if (connections[i].state == LENT)
                        give(cache, connections[i].connection);
        empty_cache(cache);
}

static void run_histories(uint64_t connection_limit) {
        for (uint64_t history = 0; history < 30; history++) {
                begin(history, connection_limit);
                for (unsigned step = 0; step < 3000; step++) {
                        act();
                        if (step % 50 == 0)
                                check_counts();
                }
                end();
        }
}

TEST(test_histories) {
        run_histories(0);
}

TEST(test_histories_at_a_limit) {
        run_histories(1);
        run_histories(7);
}

static void visit_connection(void *userdata, struct connection *connection) {
        size_t *n = userdata;

        assert_int_equal(connections[connection->fd].state, PARKED);
        assert_ptr_equal(connections[connection->fd].connection, connection);
        connections[connection->fd].seen = true;
        (*n)++;
}

static void visit_binding(void *userdata, struct binding *binding) {
        size_t *n = userdata;

        (*n)++;
        for (size_t i = 0; i < n_bindings; i++)
                if (!bindings[i].is_gone && bindings[i].uid == binding->destination->scope.uid &&
                        slice_equal(slice_of(label(bindings[i].destination)),
                                label_text(binding->destination)) &&
                        slice_equal(slice_of(label(bindings[i].endpoint)), label_text(binding->endpoint)) &&
                        slice_equal(slice_of(label(bindings[i].property)), binding_property(binding))) {
                        assert_int_equal(binding->deadline.at_us, bindings[i].at_us);
                        bindings[i].seen = true;
                        return;
                }
        fail_msg("a binding that should not be there");
}

/* Walks in small parts, with all kinds of things happening between them: what is there all the time is visited. */
static void walk(size_t budget, unsigned actions_between) {
        struct cache_cursor cursor = {};
        bool is_going_on;
        size_t n;

        for (size_t i = 0; i < n_connections; i++) {
                connections[i].seen = false;
                connections[i].stays = connections[i].state == PARKED;
        }
        do {
                n = 0;
                is_going_on = cache_walk_connections(cache, &cursor, budget, visit_connection, &n);
                assert_true(n <= budget);
                for (unsigned i = 0; i < actions_between; i++)
                        act();
        } while (is_going_on);
        for (size_t i = 0; i < n_connections; i++)
                assert_true(!connections[i].stays || connections[i].state != PARKED || connections[i].seen);

        cursor = (struct cache_cursor){};
        for (size_t i = 0; i < n_bindings; i++) {
                bindings[i].seen = false;
                bindings[i].stays = !bindings[i].is_gone;
        }
        do {
                n = 0;
                is_going_on = cache_walk_bindings(cache, &cursor, budget, visit_binding, &n);
                for (unsigned i = 0; i < actions_between; i++)
                        act();
        } while (is_going_on);
        for (size_t i = 0; i < n_bindings; i++)
                assert_true(!bindings[i].stays || bindings[i].is_gone || bindings[i].seen);
}

TEST(test_walks) {
        static const size_t budgets[] = { 1, 2, 3, 7, 100, SIZE_MAX };

        for (size_t i = 0; i < ELEMENTSOF(budgets); i++) {
                begin(i, 0);
                for (unsigned step = 0; step < 500; step++)
                        act();
                walk(budgets[i], 0);
                for (unsigned n = 0; n < 5; n++)
                        walk(budgets[i], 3 - n / 2);
                end();
        }
}

/* The walk goes on where it was although the table grows a hundredfold meanwhile. */
TEST(test_walk_while_growing) {
        struct cache_cursor cursor = {};
        size_t n = 0;
        char name[16];

        begin(1, 0);
        for (; n_connections < 1000; n_connections++) {
                connections[n_connections].state = PARKED;
                connections[n_connections].seen = false;
                (void) snprintf(name, sizeof(name), "%zu", n_connections);
                connections[n_connections].connection =
                        park(cache, USER, name, (int) n_connections, now, 1000);
        }
        while (cache_walk_connections(cache, &cursor, 10, visit_connection, &n))
                for (unsigned i = 0; i < 100 && n_connections < CONNECTIONS_MAX; i++, n_connections++) {
                        connections[n_connections].state = PARKED;
                        (void) snprintf(name, sizeof(name), "%zu", n_connections);
                        connections[n_connections].connection =
                                park(cache, USER, name, (int) n_connections, now, 1000);
                }
        for (size_t i = 0; i < 1000; i++)
                assert_true(connections[i].seen);
        end();
}

/* The endpoint that the walk stands in goes away, at every step: its neighbours in the table are not passed over. */
TEST(test_walk_while_vanishing) {
        struct cache_cursor cursor = {};
        char name[16];
        size_t n = 0;

        begin(1, 0);
        for (; n_connections < 3000; n_connections++) {
                connections[n_connections].state = PARKED;
                connections[n_connections].seen = false;
                connections[n_connections].endpoint = (unsigned) n_connections / 2;
                (void) snprintf(name, sizeof(name), "%zu", n_connections / 2);
                connections[n_connections].connection =
                        park(cache, USER, name, (int) n_connections, now, 1000);
        }
        while (cache_walk_connections(cache, &cursor, 1, visit_connection, &n))
                for (size_t i = 0; i < n_connections; i += 2)
                        /* Seen one of it and not the other: the walk is within. */
                        if (connections[i].seen && !connections[i + 1].seen &&
                                connections[i].state == PARKED && i % 4 == 0)
                                for (size_t j = i; j < i + 2; j++) {
                                        cache_remove(cache, connections[j].connection);
                                        connection_free(connections[j].connection);
                                        connections[j].state = GONE;
                                }
        assert_true(count(GONE) > 1000);
        for (size_t i = 0; i < n_connections; i++)
                assert_true(connections[i].seen || connections[i].state == GONE);
        end();
}

/* One endpoint with N connections, each with a socket. */
static void fill_endpoint(size_t n) {
        begin(1, 0);
        for (size_t i = 0; i < n; i++) {
                struct connection_details details = {
                        .scope = { USER, 0 },
                        .saved_by = USER,
                        .cookie = i + 1,
                        .endpoint = SLICE("endpoint"),
                        .ttl_us = 1000,
                        .deadline_us = now + 1000,
                        .fd = (int) i,
                };
                struct connection *connection;

                assert_int_equal(cache_save_endpoint(cache, &details, &connection), 0);
        }
}

struct visits {
        int last_fd;
        size_t n;
        struct connection *last;
};

static void visit_in_order(void *userdata, struct connection *connection) {
        struct visits *visits = userdata;

        assert_true(connection->fd > visits->last_fd);
        visits->last_fd = connection->fd;
        visits->last = connection;
        visits->n++;
}

static void remove_one(struct connection *connection) {
        cache_remove(cache, connection);
        connection_free(connection);
}

/* What is looked at is counted by the budget: with so many calls, each entry is looked at once. */
TEST(test_walk_of_one_endpoint) {
        struct cache_cursor cursor = {};
        struct visits visits = { .last_fd = -1 };
        size_t n_calls = 1;

        fill_endpoint(20000);
        while (cache_walk_connections(cache, &cursor, 100, visit_in_order, &visits))
                n_calls++;
        assert_int_equal(visits.n, 20000);
        assert_in_range(n_calls, 200, 210); /* with some for empty buckets */
        end();
}

/* Those that were visited go, as they do when agents find them: that costs nothing either. */
TEST(test_walk_behind_those_that_go) {
        struct cache_cursor cursor = {};
        struct visits visits = { .last_fd = -1 };
        size_t n_calls = 1;

        fill_endpoint(20000);
        while (cache_walk_connections(cache, &cursor, 100, visit_in_order, &visits)) {
                n_calls++;
                while (cache_counts(cache)->connections > 20000 - visits.n)
                        assert_true(take_endpoint(cache, USER, "endpoint", now) >= 0);
        }
        assert_int_equal(visits.n, 20000);
        assert_in_range(n_calls, 200, 210); /* with some for empty buckets */
        end();
}

/* Only the one behind which the walk stands goes, each time: it takes longer, but no call does, and none is visited twice. */
TEST(test_walk_behind_one_that_goes) {
        struct cache_cursor cursor = {};
        struct visits visits = { .last_fd = -1 };
        size_t n_before = 0;

        fill_endpoint(5000);
        while (cache_walk_connections(cache, &cursor, 100, visit_in_order, &visits)) {
                assert_true(visits.n - n_before <= 100);
                if (visits.n > n_before)
                        remove_one(visits.last);
                n_before = visits.n;
        }
        assert_int_equal(visits.n, 5000);
        end();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_histories),
                cmocka_unit_test(test_histories_at_a_limit),
                cmocka_unit_test(test_walks),
                cmocka_unit_test(test_walk_while_growing),
                cmocka_unit_test(test_walk_while_vanishing),
                cmocka_unit_test(test_walk_of_one_endpoint),
                cmocka_unit_test(test_walk_behind_those_that_go),
                cmocka_unit_test(test_walk_behind_one_that_goes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
