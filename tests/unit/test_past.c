/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory of what happened last to each label: what it keeps, how it grows, and what gives way. */

#include "unit.h"

#include "base/cleanup.h"
#include "cache/past.h"

static void note(struct past *past, uint64_t key, uint64_t at_us) {
        const struct past_entry entry = { REASON_EXPIRED, at_us, past_epoch(7), 0 };

        past_grow(past);
        past_note(past, key, past_pack(&entry), ~key);
}

static uint64_t time_of(const struct past *past, uint64_t key) {
        uint64_t endpoint, word = past_find(past, key, &endpoint);

        if (word == 0)
                return 0;
        assert_int_equal(endpoint, ~key);
        return past_unpack(word).at_us;
}

TEST(test_packing_keeps_everything) {
        for (enum reason reason = 0; reason <= REASON_THERE; reason++) {
                const struct past_entry entry = { reason, UINT64_C(123456789012345), past_epoch(reason), 0 };
                uint64_t word = past_pack(&entry);
                struct past_entry again = past_unpack(word);

                assert_true(word != 0);
                assert_int_equal(again.reason, entry.reason);
                assert_int_equal(again.at_us, entry.at_us);
                assert_int_equal(again.epoch, entry.epoch);
        }
}

TEST(test_off_keeps_nothing) {
        struct past past = {};

        note(&past, 1, 1);
        assert_int_equal(time_of(&past, 1), 0);
        assert_int_equal(past_bytes(&past), 0);
        past_deinit(&past);
}

TEST(test_the_last_is_kept) {
        struct past past = {};

        past_set_limit(&past, 1, 0);
        note(&past, 1, 10);
        note(&past, 1, 20);
        assert_int_equal(time_of(&past, 1), 20);
        assert_int_equal(past.n_entries, 1);
        note(&past, 0, 30);
        assert_int_equal(time_of(&past, 0), 30);
        past_deinit(&past);
}

/* In a set, that of longest ago; a limit is rounded up to one. */
TEST(test_the_oldest_gives_way) {
        struct past past = {};

        past_set_limit(&past, 3, 0);
        for (uint64_t key = 1; key <= PAST_WAYS; key++)
                note(&past, key, 100 + key);
        note(&past, 1, 200);
        note(&past, 99, 300);
        assert_int_equal(time_of(&past, 2), 0);
        assert_int_equal(time_of(&past, 1), 200);
        assert_int_equal(time_of(&past, 99), 300);
        assert_int_equal(past.n_entries, PAST_WAYS);
        past_deinit(&past);
}

/* Memory comes as it is needed; almost nothing is lost on the way; and at the limit it ends. */
TEST(test_growth) {
        enum { LIMIT = 40000 };
        uint64_t seed = 1, n_lost = 0, full_bytes;
        static uint64_t keys[10 * LIMIT];
        struct past past = {};

        past_set_limit(&past, LIMIT, 0);
        for (size_t i = 0; i < LIMIT / 2; i++) {
                keys[i] = next_random(&seed);
                note(&past, keys[i], i + 1);
                assert_true(past_bytes(&past) <= 64 * sizeof(struct past_set) * (2 + (i + 1) / 192));
        }
        for (size_t i = 0; i < LIMIT / 2; i++)
                n_lost += time_of(&past, keys[i]) == 0;
        assert_true(n_lost < LIMIT / 2 / 20);
        assert_int_equal(past.n_entries + n_lost, LIMIT / 2);

        for (size_t i = LIMIT / 2; i < 10 * LIMIT; i++) {
                keys[i] = next_random(&seed);
                note(&past, keys[i], i + 1);
        }
        full_bytes = past_bytes(&past);
        assert_true(full_bytes >= LIMIT * 24 && full_bytes < LIMIT * 24 + 64 * sizeof(struct past_set));
        assert_true(past.n_entries <= LIMIT && past.n_entries > LIMIT * 98 / 100);
        for (size_t i = 10 * LIMIT - LIMIT / 4; i < 10 * LIMIT; i++)
                assert_int_equal(time_of(&past, keys[i]), i + 1);

        past_set_limit(&past, 2 * LIMIT, 0);
        assert_true(past.n_entries > 0);
        past_set_limit(&past, 2 * LIMIT, full_bytes);
        assert_true(past.n_entries > 0);
        past_set_limit(&past, LIMIT / 2, 0);
        assert_int_equal(past.n_entries, 0);
        assert_int_equal(past_bytes(&past), 0);
        past_deinit(&past);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_packing_keeps_everything),
                cmocka_unit_test(test_off_keeps_nothing),
                cmocka_unit_test(test_the_last_is_kept),
                cmocka_unit_test(test_the_oldest_gives_way),
                cmocka_unit_test(test_growth),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
