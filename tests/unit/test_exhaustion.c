/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* No memory: each allocation of each operation of the cache fails in turn, and then nothing has changed and nothing is lost.
 * Linked with --wrap for malloc, calloc and reallocarray. */

#include <errno.h>

#include "caches.h"

#define NOW  (100 * USEC_PER_SEC)
#define LONG (50 * USEC_PER_SEC)

static unsigned countdown; /* the allocation that fails, counted from 1; 0: none */
static bool has_failed;

static bool fails(void) {
        if (countdown == 0 || --countdown > 0)
                return false;

        has_failed = true;
        return true;
}

void *__real_malloc(size_t size) __attribute__((weak));
void *__real_calloc(size_t n, size_t size) __attribute__((weak));
void *__real_reallocarray(void *p, size_t n, size_t size) __attribute__((weak));
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size);

void *__wrap_malloc(size_t size) {
        return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size) {
        return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size) {
        return fails() ? NULL : __real_reallocarray(p, n, size);
}

/* Make the Nth allocation from here on fail. */
static void fail_at(unsigned n) {
        countdown = n;
        has_failed = false;
}

static bool stop_failing(void) {
        countdown = 0;
        return has_failed;
}

TEST(test_new) {
        static const struct siphash_key key = {};
        struct cache *cache;
        unsigned n = 0;
        int r;

        do {
                fail_at(++n);
                r = cache_new(&cache, &key, &(struct cache_limits){});
                assert_int_equal(r, stop_failing() ? -ENOMEM : 0);
        } while (r < 0);
        assert_true(n > 5);
        cache_free(cache);
}

/* Saving makes a record, an endpoint and a queue for its time to live; I keeps all of them new. */
static int save_endpoint(struct cache *cache, unsigned i) {
        char label[16];
        struct connection_details details = {
                .scope.uid = USER,
                .saved_by = USER,
                .endpoint = { label, (size_t) snprintf(label, sizeof(label), "e%u", i) },
                .property = SLICE("property"),
                .ttl_us = LONG + i,
                .deadline_us = NOW + LONG + i,
                .fd = (int) i,
        };
        struct connection *connection;

        return cache_save_endpoint(cache, &details, &connection);
}

static int save_destination(struct cache *cache, unsigned i) {
        char destination[16], endpoint[16];
        struct binding_details details = {
                .scope.uid = USER,
                .saved_by = USER,
                .destination = { destination,
                        (size_t) snprintf(destination, sizeof(destination), "d%u", i) },
                .endpoint = { endpoint, (size_t) snprintf(endpoint, sizeof(endpoint), "x%u", i) },
                .ttl_us = LONG + i,
                .deadline_us = NOW + LONG + i,
        };

        return cache_save_destination(cache, &details);
}

/* Where only growing fails, the entry is saved all the same, so failing is allowed, changing something then is not. */
static void check_saves(int (*save)(struct cache *, unsigned)) {
        struct cache *cache = new_cache(0, 0);
        unsigned n_failed = 0;

        for (unsigned i = 0; i < 1500; i++) {
                for (unsigned n = 1;; n++) {
                        struct cache_counts before = *cache_counts(cache);
                        uint64_t deadline = cache_next_deadline(cache);
                        int r;

                        fail_at(n);
                        r = save(cache, i);
                        stop_failing();
                        if (r >= 0)
                                break;
                        assert_int_equal(r, -ENOMEM);
                        assert_memory_equal(&before, cache_counts(cache), sizeof(before));
                        assert_int_equal(deadline, cache_next_deadline(cache));
                        n_failed++;
                }
        }
        assert_true(n_failed >= 3000);
        empty_cache(cache);
}

TEST(test_save_endpoint) {
        check_saves(save_endpoint);
}

TEST(test_save_destination) {
        check_saves(save_destination);
}

/* A renewal that fails leaves the binding with its old end. */
TEST(test_renew) {
        struct cache *cache = new_cache(0, 0);
        struct binding_details details = {
                .scope.uid = USER,
                .saved_by = USER,
                .destination = SLICE("d"),
                .endpoint = SLICE("e"),
                .ttl_us = 2 * LONG,
                .deadline_us = NOW + 2 * LONG,
        };
        unsigned n_failed = 0;

        bind_to(cache, USER, "d", "", "e", NOW, LONG);
        park(cache, USER, "e", 1, NOW, LONG);
        for (unsigned n = 1;; n++) {
                int r;

                fail_at(n);
                r = cache_save_destination(cache, &details);
                stop_failing();
                if (r >= 0)
                        break;
                assert_int_equal(cache_next_deadline(cache), NOW + LONG);
                n_failed++;
        }
        assert_int_equal(n_failed, 1);
        assert_int_equal(take_destination(cache, USER, "d", NOW), 1);
        empty_cache(cache);
}

/* Whatever is needed to find, give, take back or let go is there already. */
TEST(test_others_allocate_nothing) {
        struct cache *cache = new_cache(0, 0);
        struct connection *connection;

        for (int i = 0; i < 3; i++)
                park(cache, USER, "e", i, NOW, LONG);
        bind_to(cache, USER, "d", "", "e", NOW, LONG);

        fail_at(1);
        connection = cache_find_endpoint(cache, (struct scope){ .uid = USER }, SLICE("e"), NOW);
        cache_take_back(cache, connection, NOW);
        assert_int_equal(take_destination(cache, USER, "d", NOW), 0);
        bind_to(cache, USER, "d", "", "e", NOW, LONG);
        cache_expire(cache, NOW + LONG, 1);
        cache_let_one_go(cache, DEPARTURE_FLUSHED);
        assert_false(stop_failing());
        empty_cache(cache);
}

/* A table that cannot grow still holds everything. */
TEST(test_growth_fails) {
        struct cache *cache = new_cache(0, 0);
        unsigned n_failed = 0;
        char label[16];

        for (int i = 0; i < 5000; i++) {
                (void) snprintf(label, sizeof(label), "%d", i);
                /* The record and the endpoint are had, the table's next segment is not. */
                fail_at(i > 0 ? 3 : 0);
                park(cache, USER, label, i, NOW, LONG);
                n_failed += stop_failing();
        }
        assert_true(n_failed > 4000);
        for (int i = 0; i < 5000; i++) {
                (void) snprintf(label, sizeof(label), "%d", i);
                assert_int_equal(take_endpoint(cache, USER, label, NOW), i);
        }
        empty_cache(cache);
}

int main(void) {
        if (!__real_malloc || !__real_calloc || !__real_reallocarray) {
                fprintf(stderr, "Not linked with --wrap=malloc,--wrap=calloc,--wrap=reallocarray.\n");
                return EXIT_FAILURE;
        }

        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_new),
                cmocka_unit_test(test_save_endpoint),
                cmocka_unit_test(test_save_destination),
                cmocka_unit_test(test_renew),
                cmocka_unit_test(test_others_allocate_nothing),
                cmocka_unit_test(test_growth_fails),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
