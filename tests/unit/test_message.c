/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes and descriptors through a socket. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"

#include "base/cleanup.h"
#include "wire/message.h"

#define MANY 253 /* SCM_MAX_FD */

static int ours, theirs;
static size_t n_before;

static size_t count_descriptors(void) {
        DIR *dir = opendir("/proc/self/fd");
        size_t n = 0;

        assert_non_null(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

static int set_up(_unused_ void **state) {
        int pair[2];

        n_before = count_descriptors();
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return -1;
        ours = pair[0];
        theirs = pair[1];
        return 0;
}

/* Every test leaves as many descriptors as there were. */
static int tear_down(_unused_ void **state) {
        closep(&ours);
        closep(&theirs);
        return count_descriptors() == n_before ? 0 : -1;
}

/* Send N copies of a descriptor with some bytes, as wire_send() never would. */
static void send_copies(const char *data, size_t size, int fd, size_t n) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(MANY * sizeof(int))];
        } control = {};
        struct iovec iov = { (void *) data, size };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = CMSG_SPACE(n * sizeof(int)),
        };

        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(n * sizeof(int));
        for (size_t i = 0; i < n; i++)
                memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &fd, sizeof(fd));
        assert_int_equal(sendmsg(theirs, &message, 0), size);
}

static bool is_same_file(int a, int b) {
        struct stat x, y;

        return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void check_receive(size_t size, ssize_t expected, enum wire_passed passed) {
        struct wire_passing passing;
        char data[100];

        assert_true(size <= sizeof(data));
        assert_int_equal(wire_receive(ours, data, size, &passing), expected);
        assert_int_equal(passing.passed, passed);
        if (passed == WIRE_PASSED_ONE) {
                assert_true(is_same_file(passing.fd, theirs));
                assert_true(fcntl(passing.fd, F_GETFD) & FD_CLOEXEC);
                close(passing.fd);
        } else
                assert_int_equal(passing.fd, -1);
}

TEST(test_bytes) {
        struct wire_passing passing;
        char data[10];

        check_receive(10, -EAGAIN, WIRE_PASSED_NONE);
        assert_int_equal(wire_send(theirs, "hello", 5, -1), 5);
        assert_int_equal(wire_receive(ours, data, 3, &passing), 3);
        assert_memory_equal(data, "hel", 3);
        assert_int_equal(wire_receive(ours, data, 10, &passing), 2);
        assert_memory_equal(data, "lo", 2);
        check_receive(10, -EAGAIN, WIRE_PASSED_NONE);
}

TEST(test_end) {
        assert_int_equal(wire_send(theirs, "x", 1, -1), 1);
        closep(&theirs);
        theirs = -1;
        check_receive(10, 1, WIRE_PASSED_NONE);
        check_receive(10, 0, WIRE_PASSED_NONE);
        assert_int_equal(wire_send(ours, "x", 1, -1), -EPIPE);
}

/* The peer went away with our answer unread. */
TEST(test_reset) {
        assert_int_equal(wire_send(ours, "x", 1, -1), 1);
        closep(&theirs);
        theirs = -1;
        check_receive(10, -ECONNRESET, WIRE_PASSED_NONE);
}

TEST(test_one_descriptor) {
        assert_int_equal(wire_send(theirs, "abc", 3, theirs), 3);
        check_receive(10, 3, WIRE_PASSED_ONE);
}

/* A read that a descriptor ends: what was sent before may be in it, what was sent after is not. */
TEST(test_ends_with_descriptor) {
        assert_int_equal(wire_send(theirs, "before", 6, -1), 6);
        assert_int_equal(wire_send(theirs, "with", 4, theirs), 4);
        assert_int_equal(wire_send(theirs, "after", 5, -1), 5);
        assert_int_equal(wire_send(theirs, "with", 4, theirs), 4);
        check_receive(100, 10, WIRE_PASSED_ONE);
        check_receive(100, 9, WIRE_PASSED_ONE);
}

/* It comes with the first bytes it was sent with, however few are read. */
TEST(test_first_byte) {
        assert_int_equal(wire_send(theirs, "abc", 3, theirs), 3);
        check_receive(1, 1, WIRE_PASSED_ONE);
        check_receive(10, 2, WIRE_PASSED_NONE);
}

TEST(test_many_descriptors) {
        static const size_t numbers[] = { 2, 3, 4, 100, MANY };

        for (size_t i = 0; i < ELEMENTSOF(numbers); i++) {
                send_copies("x", 1, theirs, numbers[i]);
                check_receive(10, 1, WIRE_PASSED_MANY);
                assert_int_equal(count_descriptors(), n_before + 2);
        }
        /* And the stream goes on. */
        assert_int_equal(wire_send(theirs, "y", 1, theirs), 1);
        check_receive(10, 1, WIRE_PASSED_ONE);
}

/* The descriptor table is full, or nearly so. */
TEST(test_full_table) {
        struct rlimit before, tight;
        int last;

        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        last = dup(ours);
        close(last);

        for (int n_free = 0; n_free < 4; n_free++)
                for (size_t n = 1; n <= 3; n++) {
                        struct wire_passing passing;
                        char byte;
                        ssize_t r;

                        send_copies("x", 1, theirs, n);
                        tight = (struct rlimit){ (rlim_t) (last + n_free), before.rlim_max };
                        assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
                        r = wire_receive(ours, &byte, 1, &passing);
                        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);

                        assert_int_equal(r, 1);
                        if (n == 1 && n_free >= 1)
                                assert_int_equal(passing.passed, WIRE_PASSED_ONE);
                        else if (n_free < 2)
                                assert_int_equal(passing.passed, WIRE_PASSED_LOST);
                        else
                                assert_int_equal(passing.passed, WIRE_PASSED_MANY);
                        closep(&passing.fd);
                        assert_int_equal(count_descriptors(), n_before + 2);
                }
}

/* The peer reads nothing: what fits is taken, and then nothing, at once. */
TEST(test_full_socket) {
        static char data[1 << 20];
        ssize_t n, sent = 0;

        while ((n = wire_send(ours, data, sizeof(data), -1)) > 0)
                sent += n;
        assert_int_equal(n, -EAGAIN);
        assert_true(sent > 0);
        assert_int_equal(wire_send(ours, "x", 1, theirs), -EAGAIN);
}

/* Large pieces: each byte arrives once, the descriptors are never lost nor put to other bytes. */
TEST(test_large_pieces) {
        enum { PIECE = 70000, PIECES = 20 };
        static char piece[PIECE], data[PIECE];
        size_t sent = 0, received = 0, n_received = 0, n_sent = 0;
        struct wire_passing passing;

        while (received < PIECE * PIECES) {
                ssize_t n;

                while (sent < PIECE * PIECES) {
                        size_t at = sent % PIECE;

                        for (size_t i = at; i < PIECE; i++)
                                piece[i] = (char) ((sent - at + i) % 251);
                        n = wire_send(theirs, piece + at, PIECE - at, at == 0 ? theirs : -1);
                        if (n == -EAGAIN)
                                break;
                        assert_true(n > 0);
                        n_sent += at == 0;
                        sent += (size_t) n;
                }

                n = wire_receive(ours, data, 1 + received % 50000, &passing);
                assert_true(n > 0);
                for (size_t i = 0; i < (size_t) n; i++)
                        assert_int_equal(data[i], (char) ((received + i) % 251));
                if (passing.passed == WIRE_PASSED_ONE) {
                        /* The piece's start is among what was read. */
                        assert_true((received + PIECE - 1) / PIECE * PIECE < received + (size_t) n);
                        close(passing.fd);
                        n_received++;
                } else
                        assert_int_equal(passing.passed, WIRE_PASSED_NONE);
                received += (size_t) n;
        }
        assert_int_equal(n_sent, PIECES);
        assert_int_equal(n_received, PIECES);
}

TEST(test_not_a_socket) {
        struct wire_passing passing;
        char byte;
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

        assert_int_equal(wire_receive(fd, &byte, 1, &passing), -ENOTSOCK);
        assert_int_equal(passing.passed, WIRE_PASSED_NONE);
        assert_int_equal(wire_send(fd, "x", 1, -1), -ENOTSOCK);
        close(fd);
}

int main(void) {
#define WITH_SOCKETS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                WITH_SOCKETS(test_bytes),
                WITH_SOCKETS(test_end),
                WITH_SOCKETS(test_reset),
                WITH_SOCKETS(test_one_descriptor),
                WITH_SOCKETS(test_ends_with_descriptor),
                WITH_SOCKETS(test_first_byte),
                WITH_SOCKETS(test_many_descriptors),
                WITH_SOCKETS(test_full_table),
                WITH_SOCKETS(test_full_socket),
                WITH_SOCKETS(test_large_pieces),
                WITH_SOCKETS(test_not_a_socket),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
