/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The lines that Postfix's log tools know. */

#include "unit.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "custody/statistics.h"

/* The lines that were written, each with a newline after it, and in brackets those that Postfix's own cache does not write. The program's own journal takes the place of the daemon's. */
static char lines[4096];

void journal_write(_unused_ struct journal *journal, enum event event,
        _unused_ const struct journal_subject *subject, _unused_ struct journal_place place,
        const char *format, ...) {
        bool is_ours = event != EVENT_STATISTICS;
        size_t length;
        va_list arguments;

        strcat(lines, is_ours ? "[" : "");
        length = strlen(lines);
        va_start(arguments, format);
        (void) vsnprintf(lines + length, sizeof(lines) - length - 2, format, arguments);
        va_end(arguments);
        strcat(lines, is_ours ? "]\n" : "\n");
}

static const char *report(struct statistics *statistics, time_t now) {
        lines[0] = 0;
        statistics_report(statistics, NULL, now);
        return lines;
}

static int set_up(_unused_ void **state) {
        (void) setenv("TZ", "UTC", true);
        tzset();
        return 0;
}

TEST(test_nothing_to_say) {
        struct statistics statistics = {};

        assert_string_equal(report(&statistics, 1000), "");
        assert_int_equal(statistics.interval_start, 1000);
}

TEST(test_lookups) {
        struct statistics statistics = { .interval_start = 1700000000 };

        statistics.total.destination_hits = 5;
        statistics.total.destination_misses = 3;
        assert_string_equal(report(&statistics, 1700000600),
                "statistics: start interval Nov 14 22:13:20\n"
                "statistics: domain lookup hits=5 miss=3 success=62%\n");

        /* Only what is new, from a new start. */
        assert_string_equal(report(&statistics, 1700001200), "");
        statistics.total.destination_hits = 6;
        statistics.total.endpoint_misses = 2;
        assert_string_equal(report(&statistics, 1700001800),
                "statistics: start interval Nov 14 22:33:20\n"
                "statistics: domain lookup hits=1 miss=0 success=100%\n"
                "statistics: address lookup hits=0 miss=2 success=0%\n");
}

TEST(test_maxima) {
        struct statistics statistics = { .interval_start = 1709283600 };

        statistics_note(
                &statistics, &(struct cache_counts){ .destinations = 2, .endpoints = 7, .connections = 9 });
        statistics_note(
                &statistics, &(struct cache_counts){ .destinations = 3, .endpoints = 1, .connections = 1 });
        assert_string_equal(report(&statistics, 1709283600),
                "statistics: start interval Mar  1 09:00:00\n"
                "statistics: max simultaneous domains=3 addresses=7 connection=9\n");
        assert_string_equal(report(&statistics, 1709283600), "");
}

TEST(test_unused) {
        struct statistics statistics = { .interval_start = 1709283600 };

        statistics.total.connections_dead = 2;
        assert_string_equal(report(&statistics, 1709284200),
                "statistics: start interval Mar  1 09:00:00\n"
                "[statistics: connections dead=2 evicted=0]\n");
        statistics.total.connections_evicted = 1;
        assert_string_equal(report(&statistics, 1709284800),
                "statistics: start interval Mar  1 09:10:00\n"
                "[statistics: connections dead=0 evicted=1]\n");
}

/* The count goes past what fits 32 bits without a wrong percentage. */
TEST(test_percent) {
        assert_int_equal(statistics_percent(0, 0), 0);
        assert_int_equal(statistics_percent(1, 0), 100);
        assert_int_equal(statistics_percent(1, 2), 33);
        assert_int_equal(statistics_percent(UINT64_C(1) << 50, UINT64_C(1) << 50), 50);
}

TEST(test_reasons_come_to_the_misses) {
        struct statistics_counters total = {};

        for (enum reason reason = 0; reason < _REASON_MAX; reason++)
                for (unsigned i = 0; i <= reason; i++)
                        statistics_count_miss(&total, i % 2 ? LABEL_ENDPOINT : LABEL_DESTINATION,
                                &(struct cache_miss){ reason, 3 * USEC_PER_SEC });
        assert_int_equal(total.destination_misses, 25);
        assert_int_equal(total.endpoint_misses, 20);
        assert_int_equal(total.destination_misses_unknown, 1);
        assert_int_equal(total.endpoint_misses_expired, 1);
        assert_int_equal(total.destination_misses_used, 5);
        assert_int_equal(total.endpoint_misses_used, 4);
        /* Only of what expired is it counted how long ago that was. */
        assert_int_equal(total.expired_ago_5s, 2);
        assert_int_equal(total.expired_ago_us, 6 * USEC_PER_SEC);

        statistics_settle(&total);
        assert_int_equal(total.destination_misses_unknown, 1);
        assert_int_equal(total.endpoint_misses_used, 4);
}

/* Counters of a process that did not know reasons, and such as no process can have written. */
TEST(test_reasons_are_made_to_fit) {
        struct statistics_counters total = { .destination_misses = 7, .endpoint_misses = 7 };

        total.endpoint_misses_expired = 5;
        total.endpoint_misses_busy = UINT64_MAX;
        statistics_settle(&total);
        assert_int_equal(total.destination_misses_unknown, 7);
        assert_int_equal(total.endpoint_misses_expired, 5);
        assert_int_equal(total.endpoint_misses_busy, 2);
        assert_int_equal(total.endpoint_misses_unknown, 0);
}

TEST(test_times) {
        struct statistics_counters total = {};

        statistics_count_time(&total, STATISTICS_REUSE_IDLE, 0);
        statistics_count_time(&total, STATISTICS_REUSE_IDLE, 100000);
        statistics_count_time(&total, STATISTICS_REUSE_IDLE, 100001);
        statistics_count_time(&total, STATISTICS_REUSE_IDLE, 600 * USEC_PER_SEC);
        statistics_count_time(&total, STATISTICS_REUSE_IDLE, 601 * USEC_PER_SEC);
        statistics_count_time(&total, STATISTICS_DEAD_IDLE, 2 * USEC_PER_SEC);
        assert_int_equal(total.reuse_idle_100ms, 2);
        assert_int_equal(total.reuse_idle_200ms, 1);
        assert_int_equal(total.reuse_idle_600s, 1);
        assert_int_equal(total.reuse_idle_longer, 1);
        assert_int_equal(total.reuse_idle_us, 200001 + 1201 * USEC_PER_SEC);
        assert_int_equal(total.dead_idle_2s, 1);
        assert_int_equal(total.dead_idle_us, 2 * USEC_PER_SEC);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_nothing_to_say),
                cmocka_unit_test(test_lookups),
                cmocka_unit_test(test_maxima),
                cmocka_unit_test(test_unused),
                cmocka_unit_test(test_percent),
                cmocka_unit_test(test_reasons_come_to_the_misses),
                cmocka_unit_test(test_reasons_are_made_to_fit),
                cmocka_unit_test(test_times),
        };

        return cmocka_run_group_tests(tests, set_up, NULL);
}
