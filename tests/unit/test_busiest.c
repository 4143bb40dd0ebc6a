/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The busiest labels: who is among them, what their rows say, and how much memory that takes. */

#include "unit.h"

#include "base/cleanup.h"
#include "cache/busiest.h"

#define ROWS   256
#define LABELS 20000

static struct busiest new_busiest(size_t limit) {
        struct busiest busiest;

        assert_int_equal(busiest_init(&busiest), 0);
        busiest_set_limit(&busiest, limit);
        return busiest;
}

/* Spread, as hashes are. */
static uint64_t key_of(uint64_t label) {
        return (label + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static struct busiest_row *look(struct busiest *busiest, uint64_t label, uint32_t *hint) {
        char text[32];
        int n = snprintf(text, sizeof(text), "label %llu", (unsigned long long) label);

        return busiest_look(busiest, key_of(label), (struct scope){ 10, 0 },
                (struct slice){ text, (size_t) n }, 5, hint);
}

TEST(test_few_labels_are_counted_exactly) {
        struct busiest busiest = new_busiest(ROWS);
        uint32_t hints[ROWS] = {};

        for (uint64_t round = 0; round < 10; round++)
                for (uint64_t label = 0; label < ROWS; label++) {
                        struct busiest_row *row = look(&busiest, label, &hints[label]);

                        assert_int_equal(row->weight, round + 1);
                        assert_int_equal(row->error, 0);
                        assert_int_equal(row->since_us, 5);
                        assert_ptr_equal(busiest_find(&busiest, key_of(label), &hints[label]), row);
                }
        assert_int_equal(busiest.n_rows, ROWS);
        busiest_deinit(&busiest);
}

TEST(test_off_keeps_nothing) {
        struct busiest busiest = new_busiest(0);
        uint32_t hint = 0;

        assert_null(look(&busiest, 1, &hint));
        assert_null(busiest_find(&busiest, key_of(1), &hint));
        assert_int_equal(busiest_bytes(&busiest), 0);
        busiest_deinit(&busiest);
}

/* A hint is only that: a row may be another label's by now, or a label may have got one. */
TEST(test_hints_may_be_wrong) {
        struct busiest busiest = new_busiest(1);
        uint32_t hint = 0, other = 0, none = BUSIEST_NONE, past = 77;

        assert_non_null(look(&busiest, 1, &hint));
        while (!look(&busiest, 2, &other))
                ;
        assert_null(busiest_find(&busiest, key_of(1), &hint));
        assert_int_equal(hint, BUSIEST_NONE);
        assert_int_equal(busiest.rows[0]->error, 1);
        assert_int_equal(busiest.rows[0]->weight, 2);
        while (!look(&busiest, 2, &none))
                ;
        assert_int_equal(none, 1);
        assert_non_null(busiest_find(&busiest, key_of(2), &past));
        busiest_deinit(&busiest);
}

TEST(test_long_labels_are_cut) {
        struct busiest busiest = new_busiest(ROWS);
        static char text[100000];
        struct busiest_row *row;
        uint32_t hint = 0;

        memset(text, 'x', sizeof(text));
        row = busiest_look(
                &busiest, 1, (struct scope){ 10, 0 }, (struct slice){ text, sizeof(text) }, 5, &hint);
        assert_int_equal(row->label_size, sizeof(text));
        assert_memory_equal(row->label, text, BUSIEST_LABEL_MAX);
        hint = 0;
        row = busiest_look(&busiest, 2, (struct scope){ 10, 0 }, (struct slice){}, 5, &hint);
        assert_int_equal(row->label_size, 0);
        busiest_deinit(&busiest);
}

/* Far more labels than rows, of which the n-th is looked up 1/n as often as the first. */
TEST(test_the_busiest_of_many) {
        struct busiest busiest = new_busiest(ROWS);
        static uint32_t hints[LABELS], truth[LABELS];
        static double until[LABELS];
        uint64_t seed = 42, n = 2000000;
        double sum = 0;

        for (size_t i = 0; i < LABELS; i++)
                until[i] = sum += 1.0 / (double) (i + 1);
        for (uint64_t i = 0; i < n; i++) {
                double at = (double) (next_random(&seed) >> 11) / (double) (UINT64_C(1) << 53) * sum;
                size_t low = 0, high = LABELS - 1;

                while (low < high) {
                        size_t middle = (low + high) / 2;

                        if (until[middle] < at)
                                low = middle + 1;
                        else
                                high = middle;
                }
                truth[low]++;
                (void) look(&busiest, low, &hints[low]);
        }

        assert_int_equal(busiest.n_rows, ROWS);
        assert_true(busiest_bytes(&busiest) < ROWS * 512);
        for (uint64_t label = 0; label < 20; label++) {
                struct busiest_row *row = busiest_find(&busiest, key_of(label), &hints[label]);
                char text[32];

                (void) snprintf(text, sizeof(text), "label %llu", (unsigned long long) label);
                assert_non_null(row);
                assert_true(slice_equal((struct slice){ row->label, row->label_size }, slice_of(text)));
                assert_true(row->weight - row->error <= truth[label]);
                /* The sample is fair: what is estimated comes near to the truth, as it does without one. */
                assert_true(row->weight + n / ROWS > truth[label]);
        }
        busiest_deinit(&busiest);
}

TEST(test_fewer_rows_begin_anew) {
        struct busiest busiest = new_busiest(ROWS);
        uint32_t hints[ROWS] = {};

        for (uint64_t label = 0; label < ROWS; label++)
                assert_non_null(look(&busiest, label, &hints[label]));
        busiest_set_limit(&busiest, ROWS / 2);
        assert_int_equal(busiest.n_rows, 0);
        for (uint64_t label = 0; label < ROWS / 2; label++)
                assert_int_equal(look(&busiest, label, &hints[label])->weight, 1);
        busiest_deinit(&busiest);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_few_labels_are_counted_exactly),
                cmocka_unit_test(test_off_keeps_nothing),
                cmocka_unit_test(test_hints_may_be_wrong),
                cmocka_unit_test(test_long_labels_are_cut),
                cmocka_unit_test(test_the_busiest_of_many),
                cmocka_unit_test(test_fewer_rows_begin_anew),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
