/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the service manager is told: in order, without waiting, and what becomes of what it does not take. */

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "daemon/loop.h"
#include "daemon/notify.h"

/* More than any queue of datagrams holds here. */
#define MANY 4096

struct manager {
        int fd;
        sd_event *event;
        struct loop *loop;
        struct notify *notify;
};

static void setup(struct manager *manager) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char name[sizeof(address.sun_path)];
        int size;

        *manager = (struct manager){ .fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) };
        assert_true(manager->fd >= 0);
        size = snprintf(name, sizeof(name), "@scached-test-%i", (int) getpid());
        memcpy(address.sun_path + 1, name + 1, (size_t) size - 1);
        assert_int_equal(bind(manager->fd, (const struct sockaddr *) &address,
                                 (socklen_t) (offsetof(struct sockaddr_un, sun_path) + (size_t) size)),
                0);
        assert_int_equal(setenv("NOTIFY_SOCKET", name, true), 0);

        assert_true(sd_event_new(&manager->event) >= 0);
        assert_int_equal(loop_new(&manager->loop, manager->event), 0);
        assert_int_equal(notify_new(&manager->notify, manager->loop), 0);
}

static void teardown(struct manager *manager) {
        notify_free(manager->notify);
        loop_free(manager->loop);
        sd_event_unref(manager->event);
        closep(&manager->fd);
        assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
}

/* Read a datagram, or the empty string if there is none. Its descriptor goes to *ret_fd. */
static const char *read_one(const struct manager *manager, int *ret_fd) {
        static char text[512];
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = { text, sizeof(text) - 1 };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t n = recvmsg(manager->fd, &message, MSG_CMSG_CLOEXEC);

        text[MAX(n, (ssize_t) 0)] = 0;
        *ret_fd = -1;
        if (n > 0 && CMSG_FIRSTHDR(&message))
                memcpy(ret_fd, CMSG_DATA(&control.header), sizeof(int));
        return text;
}

static void expect(const struct manager *manager, const char *text) {
        int fd;

        assert_string_equal(read_one(manager, &fd), text);
        assert_int_equal(fd, -1);
}

/* Say things until the service manager takes no more. Returns how many it took. */
static int fill(const struct manager *manager) {
        int n = 0, r;

        while ((r = notify_sayf(manager->notify, "N=%i", n)) == 0 && n < MANY)
                n++;
        assert_int_equal(r, -ENOBUFS);
        return n;
}

/* Run the loop until there is a datagram. */
static void run(const struct manager *manager) {
        uint64_t timeout_us = 0;
        char byte;

        do {
                timeout_us = UINT64_C(200) * USEC_PER_MSEC;
                assert_int_equal(loop_run_once(manager->loop, &timeout_us), 0);
        } while (recv(manager->fd, &byte, 1, MSG_PEEK) < 0);
}

TEST(test_nobody_listens) {
        struct manager manager;

        setup(&manager);
        notify_free(manager.notify);
        assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
        assert_int_equal(notify_new(&manager.notify, manager.loop), 0);
        assert_false(notify_is_heard(manager.notify));
        assert_int_equal(notify_say(manager.notify, "READY=1", NULL, 0), -ENOTCONN);
        assert_int_equal(notify_settle(manager.notify, 1), -ENOTCONN);
        notify_status(manager.notify, "nothing");
        teardown(&manager);
}

TEST(test_said_at_once) {
        struct manager manager;

        setup(&manager);
        assert_true(notify_is_heard(manager.notify));
        assert_int_equal(notify_say(manager.notify, "READY=1", NULL, 0), 0);
        notify_status(manager.notify, "serving");
        expect(&manager, "READY=1");
        expect(&manager, "STATUS=serving");
        expect(&manager, "");
        teardown(&manager);
}

TEST(test_order_is_kept_and_only_the_newest_status) {
        struct manager manager;
        int n, fd, pair[2];
        char text[32];

        setup(&manager);
        n = fill(&manager);
        assert_true(n > 0);
        for (int i = 0; i < 3; i++) {
                (void) snprintf(text, sizeof(text), "%i", i);
                notify_status(manager.notify, text);
        }

        for (int i = 0; i < n; i++) {
                (void) snprintf(text, sizeof(text), "N=%i", i);
                run(&manager);
                expect(&manager, text);
        }
        run(&manager);
        expect(&manager, "STATUS=2");
        expect(&manager, "");

        /* A descriptor waits as long as its message, whatever becomes of the caller's. */
        (void) fill(&manager);
        for (const char *seen = ""; strcmp(seen, "N=0") != 0;)
                seen = read_one(&manager, &fd);
        run(&manager);
        assert_int_equal(pipe(pair), 0);
        while (notify_say(manager.notify, "FDSTORE=1", &pair[1], 1) == -ENOBUFS) {
                (void) read_one(&manager, &fd);
                run(&manager);
        }
        closep(&pair[1]);
        do {
                run(&manager);
                (void) snprintf(text, sizeof(text), "%s", read_one(&manager, &fd));
        } while (strcmp(text, "FDSTORE=1") != 0);
        assert_true(fd >= 0);
        closep(&fd);
        assert_int_equal(read(pair[0], text, 1), 0);
        closep(&pair[0]);
        teardown(&manager);
}

static void note(void *userdata, int fd) {
        *(int *) userdata = fd;
}

/* A hand-over that is given up: what was not taken comes back with its descriptors, whatever else waits is still said. */
TEST(test_taken_back) {
        struct manager manager;
        int n, pair[2], copy = -1;
        char byte;

        setup(&manager);
        n = fill(&manager);
        assert_int_equal(pipe2(pair, O_NONBLOCK | O_CLOEXEC), 0);
        for (int i = 0; i < 2; i++) {
                int fd;

                (void) read_one(&manager, &fd);
                run(&manager);
        }
        assert_int_equal(notify_say(manager.notify, "FDSTORE=1", &pair[1], 1), 0);
        assert_int_equal(notify_say(manager.notify, "STOPPING=1", NULL, 0), 0);
        closep(&pair[1]);

        notify_take_back(manager.notify, note, &copy);
        assert_true(copy >= 0);
        assert_int_equal(read(pair[0], &byte, 1), -1);
        closep(&copy);
        assert_int_equal(read(pair[0], &byte, 1), 0);
        closep(&pair[0]);

        for (int i = 2; i < n; i++) {
                int fd;

                (void) read_one(&manager, &fd);
                run(&manager);
        }
        expect(&manager, "STOPPING=1");
        teardown(&manager);
}

TEST(test_settle_gives_up) {
        struct manager manager;
        uint64_t before;

        setup(&manager);
        (void) fill(&manager);
        before = clock_now(CLOCK_BOOTTIME);
        assert_true(notify_settle(manager.notify, UINT64_C(20) * USEC_PER_MSEC) < 0);
        assert_true(clock_now(CLOCK_BOOTTIME) - before < UINT64_C(5) * USEC_PER_SEC);
        teardown(&manager);
}

TEST(test_settle_ends_when_all_is_read) {
        struct manager manager;
        int fd, status;
        pid_t child;

        setup(&manager);
        child = fork();
        assert_true(child >= 0);
        if (child == 0) {
                const char *text;

                /* Forget the descriptor that comes with it, as the service manager does. */
                do {
                        struct pollfd ready = { manager.fd, POLLIN, 0 };

                        (void) poll(&ready, 1, -1);
                        text = read_one(&manager, &fd);
                } while (strcmp(text, "BARRIER=1") != 0);
                closep(&fd);
                _exit(0);
        }
        assert_int_equal(notify_settle(manager.notify, UINT64_C(30) * USEC_PER_SEC), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        teardown(&manager);
}

TEST(test_watchdog) {
        struct manager manager;

        setup(&manager);
        notify_watchdog(manager.notify, USEC_PER_MSEC);
        for (int i = 0; i < 3; i++) {
                run(&manager);
                expect(&manager, "WATCHDOG=1");
        }
        teardown(&manager);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_nobody_listens),
                cmocka_unit_test(test_said_at_once),
                cmocka_unit_test(test_order_is_kept_and_only_the_newest_status),
                cmocka_unit_test(test_taken_back),
                cmocka_unit_test(test_settle_gives_up),
                cmocka_unit_test(test_settle_ends_when_all_is_read),
                cmocka_unit_test(test_watchdog),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
