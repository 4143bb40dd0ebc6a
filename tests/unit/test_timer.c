/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Timers that come once. */

#include "unit.h"

#include "base/cleanup.h"
#include "daemon/timer.h"

/* Long enough that a timer set for it does not come during a test. */
#define LATER_US (UINT64_C(3600) * USEC_PER_SEC)

struct fixture {
        sd_event *event;
        struct loop *loop;
        struct loop_timer timer;
        unsigned n_came;
        uint64_t again_us; /* for when it sets itself again, once */
};

static void on_time(void *userdata) {
        struct fixture *fixture = userdata;

        assert_false(loop_timer_is_set(&fixture->timer));
        fixture->n_came++;
        if (fixture->again_us > 0)
                loop_timer_set(&fixture->timer, fixture->again_us);
        fixture->again_us = 0;
}

static int set_up(void **state) {
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        assert_non_null(fixture);
        assert_true(sd_event_new(&fixture->event) >= 0);
        assert_int_equal(loop_new(&fixture->loop, fixture->event), 0);
        assert_int_equal(loop_timer_init(&fixture->timer, fixture->loop, on_time, fixture), 0);
        *state = fixture;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;

        loop_timer_release(&fixture->timer);
        loop_free(fixture->loop);
        sd_event_unref(fixture->event);
        free(fixture);
        return 0;
}

static uint64_t in(uint64_t us) {
        return usec_add(clock_now(CLOCK_BOOTTIME), us);
}

/* Have the loop do what is to be done now. */
static void run(struct fixture *fixture) {
        uint64_t timeout_us = 0;

        for (unsigned i = 0; i < 3; i++, timeout_us = 0)
                assert_int_equal(loop_run_once(fixture->loop, &timeout_us), 0);
}

/* Run until the timer has come so often; a test that waits in vain is ended by its own time limit. */
static void wait_until(struct fixture *fixture, unsigned n_came) {
        uint64_t timeout_us = 0;

        while (fixture->n_came < n_came)
                assert_int_equal(loop_run_once(fixture->loop, &timeout_us), 0);
}

static void test_not_set(void **state) {
        struct fixture *fixture = *state;

        assert_false(loop_timer_is_set(&fixture->timer));
        run(fixture);
        assert_int_equal(fixture->n_came, 0);
}

static void test_comes_once(void **state) {
        struct fixture *fixture = *state;
        uint64_t at_us = in(10 * USEC_PER_MSEC);

        loop_timer_set(&fixture->timer, at_us);
        assert_true(loop_timer_is_set(&fixture->timer));
        assert_int_equal(fixture->timer.at_us, at_us);
        wait_until(fixture, 1);
        assert_true(clock_now(CLOCK_BOOTTIME) >= at_us);
        assert_false(loop_timer_is_set(&fixture->timer));
        run(fixture);
        assert_int_equal(fixture->n_came, 1);
}

/* The loop is told: it must not sleep over a timer that was set behind its back, nor to an earlier time. */
static void test_loop_is_touched(void **state) {
        struct fixture *fixture = *state;

        loop_timer_set(&fixture->timer, in(LATER_US));
        run(fixture);
        loop_timer_set(&fixture->timer, in(0));
        wait_until(fixture, 1);
}

static void test_moved_while_it_runs(void **state) {
        struct fixture *fixture = *state;
        uint64_t later_us = in(LATER_US);

        loop_timer_set(&fixture->timer, in(0));
        loop_timer_set(&fixture->timer, later_us);
        run(fixture);
        assert_int_equal(fixture->n_came, 0);
        assert_int_equal(fixture->timer.at_us, later_us);
        loop_timer_set(&fixture->timer, in(0));
        wait_until(fixture, 1);
}

static void test_taken_off(void **state) {
        struct fixture *fixture = *state;

        loop_timer_set(&fixture->timer, in(0));
        loop_timer_set(&fixture->timer, USEC_INFINITY);
        assert_false(loop_timer_is_set(&fixture->timer));
        run(fixture);
        assert_int_equal(fixture->n_came, 0);
}

static void test_sets_itself_again(void **state) {
        struct fixture *fixture = *state;

        fixture->again_us = in(0);
        loop_timer_set(&fixture->timer, in(0));
        wait_until(fixture, 2);
        run(fixture);
        assert_int_equal(fixture->n_came, 2);
}

/* Whoever sets it in each round to what it is set for makes no work: else no round would ever wait. */
static void test_set_for_the_same(void **state) {
        struct fixture *fixture = *state;
        uint64_t at_us = in(LATER_US), timeout_us, before_us;

        loop_timer_set(&fixture->timer, at_us);
        run(fixture);
        loop_timer_set(&fixture->timer, at_us);
        timeout_us = 20 * USEC_PER_MSEC;
        before_us = clock_now(CLOCK_BOOTTIME);
        assert_int_equal(loop_run_once(fixture->loop, &timeout_us), 0);
        assert_true(clock_now(CLOCK_BOOTTIME) - before_us >= 20 * USEC_PER_MSEC);
}

/* What was never made can be released, and what was released does not come. */
static void test_released(void **state) {
        struct fixture *fixture = *state;
        struct loop_timer never = {};

        loop_timer_release(&never);
        loop_timer_set(&fixture->timer, in(0));
        loop_timer_release(&fixture->timer);
        run(fixture);
        assert_int_equal(fixture->n_came, 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                CASE(test_not_set),
                CASE(test_comes_once),
                CASE(test_loop_is_touched),
                CASE(test_moved_while_it_runs),
                CASE(test_taken_off),
                CASE(test_sets_itself_again),
                CASE(test_set_for_the_same),
                CASE(test_released),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
