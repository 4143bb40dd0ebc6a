/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libscache: services that talk nonsense, restart, are silent, or are not there */

#include "test_libscache.h"

/* A service that breaks the protocol: the request fails, its connection goes, and the next request gets a new one. */

static void breaks(struct rig *rig, const char *answer, size_t size, size_t n_fds) {
        char byte;

        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        service_accept(rig);
        SAY(rig, NATIVE_GREETING);
        under_way(rig);
        EXPECT(rig, FIND_ENDP INLINE "\0");
        service_send(rig, answer, size, rig->pair, n_fds);
        over(rig, -EPROTO);
        assert_int_equal(recv(rig->service, &byte, 1, 0), 0);
        assert_int_equal(scache_take_fd(rig->scache), -ENOENT);
        assert_null(scache_get_property(rig->scache, NULL));
}

#define BREAKS(rig, answer, n_fds) breaks((rig), "" answer, sizeof(answer) - 1, (n_fds))

static void test_nonsense(void **state) {
        struct rig *rig = *state;

        BREAKS(rig, FOUND_ENDP, 0);         /* nothing with it */
        BREAKS(rig, FOUND_ENDP, 2);         /* too much with it */
        BREAKS(rig, NOT_FOUND_ENDP "x", 0); /* more than was asked for */
        BREAKS(rig, OK, 1);                 /* no property */
        BREAKS(rig, FOUND_DEST, 1);         /* one too many */
        BREAKS(rig, "status\0003\0property\0\0\0", 0);
        BREAKS(rig, "status\0000\0pr\0p\0\0", 1);
        BREAKS(rig, "stat\0000\0property\0p\0\0", 1);
        BREAKS(rig, "\0", 0);
}

static void test_nonsense_greeting(void **state) {
        struct rig *rig = *state;

        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        service_accept(rig);
        SAY(rig, "protocol\0master_protocol\0\0");
        over(rig, -EPROTO);

        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        service_accept(rig);
        SAY_WITH(rig, GREETING, rig->pair[0]);
        over(rig, -EPROTO);

        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        service_accept(rig);
        SAY(rig, GREETING DUMMY);
        over(rig, -EPROTO);
}

/* A restart of the service. */

static void wait_for_retry(struct rig *rig) {
        while (clock_now(CLOCK_MONOTONIC) < scache_get_timeout(rig->scache))
                (void) poll(NULL, 0, 1);
}

static void test_stale(void **state) {
        struct rig *rig = *state;

        CONNECTED(rig, NATIVE_GREETING);
        service_hang_up(rig);

        /* That nobody is there any more shows when the request is sent: it goes to the next one. */
        assert_int_equal(start_save(rig), 0);
        service_accept(rig);
        SAY(rig, GREETING);
        under_way(rig);
        EXPECT(rig, SAVE_DEST);
        SAY(rig, OK);
        under_way(rig);
        service_hang_up(rig);

        /* This one leaves in the middle, and the next one offers something else. */
        under_way(rig);
        service_accept(rig);
        SAY(rig, NATIVE_GREETING);
        under_way(rig);
        EXPECT_WITH(rig, SAVE FAREWELL "\0");
        SAY(rig, OK);
        over(rig, 0);
}

/* A service that hangs up on a request each time has its reasons. */
static void test_cut_each_time(void **state) {
        struct rig *rig = *state;
        int n = 0;

        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        for (;; n++) {
                service_accept(rig);
                SAY(rig, NATIVE_GREETING);
                under_way(rig);
                service_hang_up(rig);
                if (scache_process(rig->scache) == 1)
                        break;
        }
        assert_int_equal(scache_get_result(rig->scache), -ECONNRESET);
        assert_int_equal(n, 3);
}

/* What was found is found, be the service gone before it is thanked. */
static void test_cut_after_descriptor(void **state) {
        struct rig *rig = *state;

        CONNECTED(rig, GREETING);
        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        EXPECT(rig, FIND_ENDP "\0");
        SAY(rig, FOUND_ENDP);
        under_way(rig);
        EXPECT(rig, DUMMY);
        SAY_WITH(rig, "\0", rig->pair[0]);
        service_hang_up(rig);
        over(rig, 0);
        found(rig, "p", NULL);
}

/* The socket unit is restarted as well: for a moment, nobody listens. */
static void test_nobody_listens_for_a_moment(void **state) {
        struct rig *rig = *state;

        CONNECTED(rig, NATIVE_GREETING);
        service_hang_up(rig);
        stop_listening(rig);

        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        for (int i = 0; i < 5; i++) {
                wait_for_retry(rig);
                under_way(rig);
        }
        start_listening(rig, 16);
        service_accept(rig);
        SAY(rig, NATIVE_GREETING);
        under_way(rig);
        EXPECT(rig, FIND_ENDP INLINE "\0");
        SAY(rig, NOT_FOUND_ENDP);
        over(rig, -ENOENT);
}

/* And where it never was, it is not waited for. */
static void test_nobody_listens(void **state) {
        struct rig *rig = *state;
        uint64_t start_us = clock_now(CLOCK_MONOTONIC);
        int fd;

        stop_listening(rig);
        assert_int_equal(scache_find_endp(rig->scache, "e", &fd), -ECONNREFUSED);
        start_listening(rig, 16);
        close(steal_fd(&rig->listener));
        assert_int_equal(scache_connect(rig->scache), -ECONNREFUSED);
        assert_true(clock_now(CLOCK_MONOTONIC) - start_us < USEC_PER_SEC / 2);
}

/* Timeouts. */

static void test_no_greeting(void **state) {
        struct rig *rig = *state;
        uint64_t start_us = clock_now(CLOCK_MONOTONIC);

        scache_set_timeout(rig->scache, 50000);
        assert_int_equal(scache_connect(rig->scache), -ETIMEDOUT);
        assert_true(clock_now(CLOCK_MONOTONIC) - start_us >= 50000);
}

/* No restart makes a request take longer than it may. */
static void test_no_answer(void **state) {
        struct rig *rig = *state;
        uint64_t start_us = clock_now(CLOCK_MONOTONIC);
        int fd;

        scache_set_timeout(rig->scache, 100000);
        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        service_accept(rig);
        SAY(rig, NATIVE_GREETING);
        under_way(rig);
        service_hang_up(rig);
        under_way(rig);
        assert_true(scache_get_timeout(rig->scache) <= start_us + 100000 + USEC_PER_SEC / 10);
        while (scache_process(rig->scache) == 0)
                wait_for_retry(rig);
        assert_int_equal(scache_get_result(rig->scache), -ETIMEDOUT);
        assert_int_equal(scache_find_endp(rig->scache, "e", &fd), -ETIMEDOUT);
}

/* The queue at its door is full. */
static void test_no_room(void **state) {
        struct rig *rig = *state;
        struct scache *others[3];

        stop_listening(rig);
        start_listening(rig, 0);
        scache_set_timeout(rig->scache, 50000);
        for (size_t i = 0; i < ELEMENTSOF(others); i++) {
                assert_int_equal(scache_new(&others[i], rig->address.sun_path, 0), 0);
                assert_int_equal(scache_start_connect(others[i]), 0);
        }
        assert_int_equal(scache_connect(rig->scache), -ETIMEDOUT);

        /* There is some as soon as somebody is let in. */
        scache_set_timeout(rig->scache, 0);
        assert_int_equal(scache_start_connect(rig->scache), 0);
        for (size_t i = 0; i < ELEMENTSOF(others); i++)
                scache_free(others[i]);
        do
                service_accept(rig);
        while (send(rig->service, GREETING, sizeof(GREETING) - 1, MSG_NOSIGNAL) < 0);
        over(rig, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
                cmocka_unit_test_setup_teardown(test_nonsense_greeting, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stale, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cut_each_time, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cut_after_descriptor, setup, teardown),
                cmocka_unit_test_setup_teardown(test_nobody_listens_for_a_moment, setup, teardown),
                cmocka_unit_test_setup_teardown(test_nobody_listens, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_greeting, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_answer, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
        };

        return cmocka_run_group_tests_name("libscache, faults", tests, NULL, NULL);
}
