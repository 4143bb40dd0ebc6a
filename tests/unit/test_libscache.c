/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libscache: each request, byte for byte, and the form for event loops */

#include "test_libscache.h"

/* Each request, in one trip. */

static void test_one_trip(void **state) {
        struct rig *rig = *state;

        CONNECTED(rig, NATIVE_GREETING);

        assert_int_equal(start_save_endp(rig), 0);
        EXPECT_WITH(rig, SAVE_ENDP FAREWELL "\0");
        SAY(rig, OK);
        over(rig, 0);

        assert_int_equal(scache_start_save_dest(rig->scache, 30, "d", "b", "e"), 0);
        EXPECT(rig, SAVE_DEST);
        SAY(rig, OK);
        over(rig, 0);

        assert_int_equal(start_save(rig), 0);
        EXPECT_WITH(rig, SAVE FAREWELL "\0");
        SAY(rig, OK);
        over(rig, 0);

        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        EXPECT(rig, FIND_ENDP INLINE "\0");
        SAY_WITH(rig, FOUND_ENDP, rig->pair[0]);
        over(rig, 0);
        found(rig, "p", NULL);

        assert_int_equal(scache_start_find_dest(rig->scache, "d"), 0);
        EXPECT(rig, FIND_DEST INLINE "\0");
        SAY_WITH(rig, FOUND_DEST, rig->pair[0]);
        over(rig, 0);
        found(rig, "p", "b");
        expect_silence(rig);
}

/* Each request, as Postfix says it. */

static void dance(struct rig *rig) {
        assert_int_equal(start_save_endp(rig), 0);
        EXPECT(rig, SAVE_ENDP "\0");
        SAY(rig, DUMMY);
        under_way(rig);
        EXPECT_WITH(rig, "\0");
        SAY(rig, OK);
        over(rig, 0);

        assert_int_equal(start_save(rig), 0);
        EXPECT(rig, SAVE_DEST);
        SAY(rig, OK);
        under_way(rig);
        EXPECT(rig, SAVE_ENDP "\0");
        SAY(rig, DUMMY);
        under_way(rig);
        EXPECT_WITH(rig, "\0");
        SAY(rig, OK);
        over(rig, 0);

        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        EXPECT(rig, FIND_ENDP "\0");
        SAY(rig, FOUND_ENDP);
        under_way(rig);
        EXPECT(rig, DUMMY);
        SAY_WITH(rig, "\0", rig->pair[0]);
        over(rig, 0);
        EXPECT(rig, DUMMY);
        found(rig, "p", NULL);

        assert_int_equal(scache_start_find_dest(rig->scache, "d"), 0);
        EXPECT(rig, FIND_DEST "\0");
        SAY(rig, FOUND_DEST);
        under_way(rig);
        EXPECT(rig, DUMMY);
        SAY_WITH(rig, "\0", rig->pair[0]);
        over(rig, 0);
        EXPECT(rig, DUMMY);
        found(rig, "p", "b");
}

static void test_dance(void **state) {
        struct rig *rig = *state;

        CONNECTED(rig, GREETING);
        dance(rig);
}

static void test_legacy(void **state) {
        struct rig *rig = *state;

        /* There is nothing to be waited for. */
        assert_int_equal(scache_start_connect(rig->scache), 1);
        service_accept(rig);
        dance(rig);
}

/* A word that only looks like one we know offers nothing. */
static void test_extensions(void **state) {
        struct rig *rig = *state;

        CONNECTED(rig, "protocol\0connection_cache_protocol\0extensions\0inlined saves in farewell\0\0");
        assert_int_equal(start_save_endp(rig), 0);
        EXPECT(rig, SAVE_ENDP FAREWELL "\0");
        SAY(rig, DUMMY);
        under_way(rig);
        EXPECT_WITH(rig, "\0");
        SAY(rig, OK);
        over(rig, 0);
}

static void test_epoch(void **state) {
        struct rig *rig = *state;

        assert_int_equal(scache_set_epoch(rig->scache, "a former one"), 0);
        assert_int_equal(scache_set_epoch(rig->scache, "7"), 0);
        CONNECTED(rig, "protocol\0connection_cache_protocol\0extensions\0inline save farewell epoch\0\0");
        assert_int_equal(start_save(rig), 0);
        assert_int_equal(scache_set_epoch(rig->scache, NULL), -EBUSY);
        EXPECT_WITH(rig, SAVE FAREWELL EPOCH "\0");
        SAY(rig, OK);
        over(rig, 0);

        assert_int_equal(scache_start_find_dest(rig->scache, "d"), 0);
        EXPECT(rig, FIND_DEST INLINE EPOCH "\0");
        SAY_WITH(rig, FOUND_DEST, rig->pair[0]);
        over(rig, 0);

        assert_int_equal(scache_set_epoch(rig->scache, NULL), 0);
        assert_int_equal(start_save_endp(rig), 0);
        EXPECT_WITH(rig, SAVE_ENDP FAREWELL "\0");
        SAY(rig, OK);
        over(rig, 0);
}

/* What a service without epochs finds may be of any. */
static void test_no_epochs(void **state) {
        struct rig *rig = *state;

        assert_int_equal(scache_set_epoch(rig->scache, "7"), 0);
        CONNECTED(rig, NATIVE_GREETING);
        assert_int_equal(scache_start_find_dest(rig->scache, "d"), -EOPNOTSUPP);
        assert_int_equal(scache_set_epoch(rig->scache, NULL), 0);
}

/* Whatever the pieces are that answers come in. */
static void test_bytewise(void **state) {
        static const char greeting[] = NATIVE_GREETING, answer[] = FOUND_DEST;
        struct rig *rig = *state;

        assert_int_equal(scache_start_find_dest(rig->scache, "d"), 0);
        service_accept(rig);
        for (size_t i = 0; i < sizeof(greeting) - 1; i++) {
                under_way(rig);
                service_send(rig, greeting + i, 1, NULL, 0);
        }
        under_way(rig);
        EXPECT(rig, FIND_DEST INLINE "\0");
        for (size_t i = 0; i < sizeof(answer) - 1; i++) {
                under_way(rig);
                service_send(rig, answer + i, 1, rig->pair, i == 0);
        }
        over(rig, 0);
        found(rig, "p", "b");
}

/* Misses and refusals: the service is ready for the next request. */
static void test_refusals(void **state) {
        struct rig *rig = *state;

        CONNECTED(rig, NATIVE_GREETING);

        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        EXPECT(rig, FIND_ENDP INLINE "\0");
        SAY(rig, NOT_FOUND_ENDP);
        over(rig, -ENOENT);
        assert_null(scache_get_property(rig->scache, NULL));
        assert_int_equal(scache_take_fd(rig->scache), -ENOENT);

        assert_int_equal(start_save_endp(rig), 0);
        EXPECT_WITH(rig, SAVE_ENDP FAREWELL "\0");
        SAY(rig, FAILED);
        over(rig, -EREMOTEIO);

        assert_int_equal(start_save_endp(rig), 0);
        EXPECT_WITH(rig, SAVE_ENDP FAREWELL "\0");
        SAY(rig, BAD);
        over(rig, -EINVAL);

        /* The connection is still ours, as after a success. */
        assert_true(fcntl(rig->pair[0], F_GETFD) >= 0);
}

static void test_arguments(void **state) {
        struct rig *rig = *state;
        struct scache *other;
        char path[200] = "/";

        assert_int_equal(scache_new(&other, "", 0), -EINVAL);
        assert_int_equal(scache_new(&other, "/x", 2), -EINVAL);
        memset(path, 'x', sizeof(path) - 1);
        assert_int_equal(scache_new(&other, path, 0), -ENAMETOOLONG);
        assert_null(scache_free(NULL));

        assert_int_equal(scache_save_endp(rig->scache, 0, "e", "p", NULL, rig->pair[0]), -EINVAL);
        assert_int_equal(scache_save_endp(rig->scache, 1, NULL, "p", NULL, rig->pair[0]), -EINVAL);
        assert_int_equal(scache_save_endp(rig->scache, 1, "e", "p", NULL, -1), -EBADF);
        assert_int_equal(scache_save_dest(rig->scache, 1, NULL, "p", "e"), -EINVAL);
        assert_int_equal(scache_save(rig->scache, 1, "d", "b", NULL, "p", NULL, rig->pair[0]), -EINVAL);
        assert_int_equal(scache_start_find_dest(rig->scache, NULL), -EINVAL);
        assert_int_equal(scache_get_result(rig->scache), 0);
}

/* The form for event loops. */

static bool is_readable(int fd) {
        struct pollfd pollfd = { .fd = fd, .events = POLLIN };

        return poll(&pollfd, 1, 0) == 1;
}

static void test_event_loop(void **state) {
        struct rig *rig = *state;
        int fd = scache_get_fd(rig->scache);

        assert_true(fd >= 0);
        assert_int_equal(scache_get_events(rig->scache), POLLIN);
        assert_false(is_readable(fd));

        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        assert_int_equal(scache_start_find_endp(rig->scache, "e"), -EBUSY);
        assert_int_equal(scache_take_fd(rig->scache), -ENOENT);
        service_accept(rig);
        assert_false(is_readable(fd));
        SAY(rig, NATIVE_GREETING);
        assert_true(is_readable(fd));
        under_way(rig);
        assert_false(is_readable(fd));
        SAY(rig, NOT_FOUND_ENDP);
        assert_true(is_readable(fd));
        over(rig, -ENOENT);
        assert_false(is_readable(fd));

        /* The service goes while nothing is asked of it: an event, once. */
        service_hang_up(rig);
        assert_true(is_readable(fd));
        assert_int_equal(scache_process(rig->scache), 0);
        assert_false(is_readable(fd));

        /* The next request has another socket, which the same descriptor tells of. */
        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        assert_int_equal(scache_get_fd(rig->scache), fd);
        service_accept(rig);
        SAY(rig, NATIVE_GREETING);
        assert_true(is_readable(fd));
        under_way(rig);
}

/* A service that does not read: the event is that it does. */
static void test_wants_to_write(void **state) {
        struct rig *rig = *state;
        char *label = malloc(1 << 20), *p = label;
        int fd = scache_get_fd(rig->scache);
        size_t got = 0;

        assert_non_null(label);
        memset(label, 'x', (1 << 20) - 1);
        label[(1 << 20) - 1] = 0;
        CONNECTED(rig, NATIVE_GREETING);
        assert_int_equal(scache_start_find_endp(rig->scache, label), 0);
        assert_false(is_readable(fd));
        while (got < (1 << 20)) {
                ssize_t n = recv(rig->service, p, 1 << 20, 0);

                if (n > 0) {
                        got += (size_t) n;
                        continue;
                }
                assert_true(is_readable(fd));
                under_way(rig);
        }
        assert_false(is_readable(fd));
        SAY(rig, NOT_FOUND_ENDP);
        over(rig, -ENOENT);
        free(label);
}

static void test_cancel(void **state) {
        struct rig *rig = *state;
        char byte;

        CONNECTED(rig, NATIVE_GREETING);
        scache_cancel(rig->scache);
        assert_int_equal(scache_get_result(rig->scache), 0);

        assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
        scache_cancel(rig->scache);
        assert_int_equal(scache_get_result(rig->scache), -ECANCELED);
        EXPECT(rig, FIND_ENDP INLINE "\0");
        assert_int_equal(recv(rig->service, &byte, 1, 0), 0);
        assert_int_equal(scache_process(rig->scache), 0);
}

/* What was found and not taken is not kept open beyond the next request. */
static void test_not_taken(void **state) {
        struct rig *rig = *state;
        size_t n_open;

        CONNECTED(rig, NATIVE_GREETING);
        n_open = count_open();
        for (int i = 0; i < 2; i++) {
                assert_int_equal(scache_start_find_endp(rig->scache, "e"), 0);
                EXPECT(rig, FIND_ENDP INLINE "\0");
                SAY_WITH(rig, FOUND_ENDP, rig->pair[0]);
                over(rig, 0);
                assert_int_equal(count_open(), n_open + 1);
        }
}

static void test_bad_descriptor(void **state) {
        struct rig *rig = *state;
        int fd = dup(rig->pair[0]);

        CONNECTED(rig, NATIVE_GREETING);
        close(fd);
        assert_int_equal(scache_save_endp(rig->scache, 30, "e", "p", NULL, fd), -EBADF);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_one_trip, setup, teardown),
                cmocka_unit_test_setup_teardown(test_dance, setup, teardown),
                cmocka_unit_test_setup_teardown(test_legacy, setup_legacy, teardown),
                cmocka_unit_test_setup_teardown(test_extensions, setup, teardown),
                cmocka_unit_test_setup_teardown(test_epoch, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_epochs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bytewise, setup, teardown),
                cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
                cmocka_unit_test_setup_teardown(test_arguments, setup, teardown),
                cmocka_unit_test_setup_teardown(test_event_loop, setup, teardown),
                cmocka_unit_test_setup_teardown(test_wants_to_write, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
                cmocka_unit_test_setup_teardown(test_not_taken, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bad_descriptor, setup, teardown),
        };

        return cmocka_run_group_tests_name("libscache", tests, NULL, NULL);
}
