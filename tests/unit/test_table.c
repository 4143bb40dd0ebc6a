/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table that grows a bucket at a time. */

#include "unit.h"

#include "base/cleanup.h"
#include "cache/table.h"

#define ENTRIES 20000

struct number {
        struct table_entry by_value;
        uint64_t value;
        uint64_t bucket; /* where it was seen last */
        unsigned visits;
        bool is_in;
};

static struct number numbers[ENTRIES];

static uint64_t hash_of(uint64_t value) {
        return (value + 1) * 0x9e3779b97f4a7c15;
}

static bool has_value(const struct table_entry *entry, const void *key) {
        return CONTAINER_OF(entry, const struct number, by_value)->value == *(const uint64_t *) key;
}

static struct number *find(const struct table *table, uint64_t value) {
        struct table_entry *entry = table_find(table, hash_of(value), has_value, &value);

        return entry ? CONTAINER_OF(entry, struct number, by_value) : NULL;
}

static void add(struct table *table, uint64_t value) {
        numbers[value] = (struct number){ .value = value, .is_in = true };
        table_add(table, &numbers[value].by_value, hash_of(value));
}

static void take(struct table *table, uint64_t value) {
        table_remove(table, &numbers[value].by_value);
        numbers[value].is_in = false;
}

/* Each entry is in exactly one bucket, and in none before the one it was in when last looked at. */
static void check_buckets(const struct table *table) {
        uint64_t n = 0;

        for (uint64_t bucket = 0; bucket < table->n_buckets; bucket++)
                for (struct table_entry *e = table_bucket(table, bucket); e; e = e->next) {
                        struct number *number = CONTAINER_OF(e, struct number, by_value);

                        assert_true(number->is_in);
                        assert_true(bucket >= number->bucket);
                        number->bucket = bucket;
                        n++;
                }
        assert_int_equal(n, table->n_entries);
}

static int set_up(void **state) {
        static struct table table;

        *state = &table;
        return table_init(&table);
}

static int tear_down(void **state) {
        struct table *table = *state;

        for (uint64_t i = 0; i < ENTRIES; i++)
                if (numbers[i].is_in)
                        take(table, i);
        table_deinit(table);
        return 0;
}

static void test_grows_and_finds(void **state) {
        struct table *table = *state;
        uint64_t n_buckets = table->n_buckets;

        for (uint64_t i = 0; i < ENTRIES; i++) {
                assert_null(find(table, i));
                add(table, i);
                assert_ptr_equal(find(table, i), &numbers[i]);
                /* Never more than one step at a time. */
                assert_true(table->n_buckets - n_buckets <= 1);
                n_buckets = table->n_buckets;
        }
        for (uint64_t i = 0; i < ENTRIES; i++)
                assert_ptr_equal(find(table, i), &numbers[i]);
        assert_int_equal(table->n_entries, ENTRIES);
        assert_true(table->n_buckets >= ENTRIES - 1);
        check_buckets(table);
}

static void test_entries_only_move_up(void **state) {
        struct table *table = *state;

        for (uint64_t i = 0; i < ENTRIES; i++) {
                add(table, i);
                if (i % 97 == 0)
                        check_buckets(table);
        }
        check_buckets(table);
}

/* What walks rely on: who stays from start to end is met, however the table grows in between. */
static void test_walk_while_growing(void **state) {
        struct table *table = *state;
        uint64_t next = 2000;

        for (uint64_t i = 0; i < next; i++)
                add(table, i);
        for (uint64_t bucket = 0; bucket < table->n_buckets; bucket++) {
                for (struct table_entry *e = table_bucket(table, bucket); e; e = e->next)
                        CONTAINER_OF(e, struct number, by_value)->visits++;
                for (unsigned i = 0; i < 3 && next < ENTRIES; i++)
                        add(table, next++);
        }
        assert_int_equal(next, ENTRIES);
        for (uint64_t i = 0; i < 2000; i++)
                assert_true(numbers[i].visits >= 1);
}

static void test_removes(void **state) {
        struct table *table = *state;
        uint64_t seed = 7;

        for (unsigned i = 0; i < 200000; i++) {
                uint64_t value = next_random(&seed) % ENTRIES;

                assert_ptr_equal(find(table, value), numbers[value].is_in ? &numbers[value] : NULL);
                if (numbers[value].is_in)
                        take(table, value);
                else
                        add(table, value);
        }
        check_buckets(table);
}

/* One chain must bear what an unlucky hash does to it. */
static void test_same_hash(void **state) {
        struct table *table = *state;

        for (uint64_t i = 0; i < 50; i++) {
                numbers[i] = (struct number){ .value = i };
                table_add(table, &numbers[i].by_value, 42);
        }
        for (uint64_t i = 0; i < 50; i += 2)
                table_remove(table, &numbers[i].by_value);
        for (uint64_t i = 0; i < 50; i++)
                assert_true((table_find(table, 42, has_value, &i) != NULL) == (i % 2 == 1));
        for (uint64_t i = 1; i < 50; i += 2)
                table_remove(table, &numbers[i].by_value);
}

static void test_small_again_when_empty(void **state) {
        struct table *table = *state;
        uint64_t n_buckets = table->n_buckets;

        for (uint64_t i = 0; i < ENTRIES; i++)
                add(table, i);
        assert_true(table->n_segments > 1);
        for (uint64_t i = 0; i < ENTRIES; i++)
                take(table, i);
        assert_int_equal(table->n_segments, 1);
        assert_int_equal(table->n_buckets, n_buckets);

        /* And it grows again. */
        for (uint64_t i = 0; i < ENTRIES; i++)
                add(table, i);
        check_buckets(table);
}

int main(void) {
#define WITH_TABLE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                WITH_TABLE(test_grows_and_finds),
                WITH_TABLE(test_entries_only_move_up),
                WITH_TABLE(test_walk_while_growing),
                WITH_TABLE(test_removes),
                WITH_TABLE(test_same_hash),
                WITH_TABLE(test_small_again_when_empty),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
