/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which entry ends first, against looking at all of them. */

#include "unit.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "cache/deadlines.h"

#define ENTRIES 500

static const struct siphash_key key = { 1, 2 };
static struct deadline entries[ENTRIES];

/* Who has entries. */
#define SETS 3

static struct deadline_set sets[SETS];

static int set_up(void **state) {
        static struct deadlines deadlines;

        memset(entries, 0, sizeof(entries));
        *state = &deadlines;
        assert_int_equal(deadlines_init(&deadlines, &key), 0);
        for (size_t i = 0; i < SETS; i++)
                assert_int_equal(deadline_set_init(&sets[i], &deadlines), 0);
        return 0;
}

static int tear_down(void **state) {
        struct deadlines *deadlines = *state;

        for (size_t i = 0; i < ENTRIES; i++)
                deadlines_remove(&entries[i]);
        assert_null(deadlines_first(deadlines));
        for (size_t i = 0; i < SETS; i++) {
                assert_null(deadline_set_first(&sets[i]));
                deadline_set_deinit(&sets[i]);
        }
        assert_int_equal(deadlines->queues.n_entries, 0);
        deadlines_deinit(deadlines);
        return 0;
}

/* Of a set, or of all. */
static uint64_t first_end(const struct deadline_set *set) {
        uint64_t first = USEC_INFINITY;

        for (size_t i = 0; i < ENTRIES; i++)
                if (entries[i].queue && (!set || deadline_set_of(&entries[i]) == set))
                        first = MIN(first, entries[i].at_us);
        return first;
}

static void check_first(const struct deadlines *deadlines) {
        const struct deadline *first = deadlines_first(deadlines);

        assert_int_equal(first ? first->at_us : USEC_INFINITY, first_end(NULL));
        for (size_t i = 0; i < SETS; i++) {
                first = deadline_set_first(&sets[i]);
                assert_int_equal(first ? first->at_us : USEC_INFINITY, first_end(&sets[i]));
        }
}

static void set(size_t set, size_t i, uint64_t ttl, uint64_t at) {
        assert_int_equal(deadlines_add(&sets[set], &entries[i], ttl, at), 0);
        assert_int_equal(entries[i].at_us, at);
        assert_int_equal(deadline_ttl(&entries[i]), ttl);
        assert_ptr_equal(deadline_set_of(&entries[i]), &sets[set]);
}

/* As the daemon uses it: the clock goes on, and every entry ends its time to live from now. N_TTLS different ones. */
static void random_operations(struct deadlines *deadlines, uint64_t n_ttls) {
        uint64_t seed = n_ttls, now = 1000;

        for (unsigned step = 0; step < 30000; step++) {
                size_t i = next_random(&seed) % ENTRIES;
                struct deadline *first;

                now += next_random(&seed) % 3;
                switch (next_random(&seed) % 8) {
                case 0:
                        deadlines_remove(&entries[i]);
                        break;
                case 1:
                        while ((first = deadlines_first(deadlines)) && first->at_us <= now) {
                                assert_int_equal(first->at_us, first_end(NULL));
                                deadlines_remove(first);
                        }
                        assert_true(first_end(NULL) > now);
                        break;
                default: {
                        uint64_t ttl = 1 + next_random(&seed) % n_ttls * 7;

                        set(next_random(&seed) % SETS, i, ttl, now + ttl);
                }
                }
                if (step % 16 == 0)
                        check_first(deadlines);
        }
        check_first(deadlines);
}

static void test_one_ttl(void **state) {
        random_operations(*state, 1);
}

static void test_few_ttls(void **state) {
        random_operations(*state, 5);
}

static void test_many_ttls(void **state) {
        random_operations(*state, 3000);
}

/* Entries that were taken over come in any order. */
static void test_out_of_order(void **state) {
        struct deadlines *deadlines = *state;
        uint64_t seed = 3, last = 0;
        struct deadline *first;

        for (size_t i = 0; i < ENTRIES; i++) {
                set(i % SETS, i, 10 * (1 + i % 5), 1 + next_random(&seed) % 10000);
                check_first(deadlines);
        }
        while ((first = deadlines_first(deadlines))) {
                assert_true(first->at_us >= last);
                last = first->at_us;
                deadlines_remove(first);
        }
}

/* Equal ends: who came first goes first. */
static void test_ties(void **state) {
        struct deadlines *deadlines = *state;

        for (size_t i = 0; i < 10; i++)
                set(0, i, 5, 100);
        for (size_t i = 0; i < 10; i++) {
                assert_ptr_equal(deadlines_first(deadlines), &entries[i]);
                deadlines_remove(&entries[i]);
        }
}

static void test_renewal_of_the_only_one(void **state) {
        struct deadlines *deadlines = *state;

        set(0, 0, 5, 100);
        set(0, 0, 5, 200);
        assert_ptr_equal(deadlines_first(deadlines), &entries[0]);
        set(0, 0, 9, 150);
        assert_ptr_equal(deadlines_first(deadlines), &entries[0]);
        assert_int_equal(sets[0].queues.n, 1);
        deadlines_remove(&entries[0]);
        deadlines_remove(&entries[0]); /* once more does nothing */
        assert_null(deadlines_first(deadlines));
}

/* Queues that are empty do not pile up. */
static void test_queues_are_given_back(void **state) {
        struct deadlines *deadlines = *state;

        for (uint64_t i = 0; i < 10000; i++) {
                set(0, 0, i + 1, i + 1);
                assert_true(deadlines->queues.n_entries <= 2);
        }
        for (size_t i = 0; i < ENTRIES; i++)
                set(0, i, i + 1, 2 * i);
        for (size_t i = 0; i < ENTRIES; i++)
                deadlines_remove(&entries[i]);
        assert_true(deadlines->queues.n_entries <= 1);
}

int main(void) {
#define WITH_DEADLINES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                WITH_DEADLINES(test_one_ttl),
                WITH_DEADLINES(test_few_ttls),
                WITH_DEADLINES(test_many_ttls),
                WITH_DEADLINES(test_out_of_order),
                WITH_DEADLINES(test_ties),
                WITH_DEADLINES(test_renewal_of_the_only_one),
                WITH_DEADLINES(test_queues_are_given_back),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
