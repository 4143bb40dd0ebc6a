/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "daemon/datagram.h"
#include "daemon/timer.h"

/* If the service manager does not read, we try again after this time. */
#define RETRY_US (UINT64_C(50) * USEC_PER_MSEC)

/* The most messages that wait: while the service manager does not read, reloads could add more and more. */
#define WAITING_MAX 64

#define MESSAGE_MAX 256

struct message {
        STAILQ_ENTRY(message) next;
        size_t n_fds;
        int *fds; /* copies, the message's own */
        char text[];
};

STAILQ_HEAD(message_list, message);

struct notify {
        struct datagram datagram;
        struct message_list waiting;
        size_t n_waiting;
        char status[MESSAGE_MAX]; /* empty if none waits */
        bool watchdog_is_due;
        uint64_t watchdog_us;
        struct loop_timer retry_timer;
        struct loop_timer watchdog_timer;
};

static struct message *message_free(struct message *message) {
        if (!message)
                return NULL;

        for (size_t i = 0; i < message->n_fds; i++)
                closep(&message->fds[i]);
        free(message->fds);
        free(message);
        return NULL;
}
DEFINE_CLEANUP(struct message *, message_free);

static int message_new(struct message **ret, const char *text, const int fds[], size_t n_fds) {
        _cleanup_(message_freep) struct message *message = NULL;
        size_t size = strlen(text) + 1;

        message = malloc(sizeof(*message) + size);
        if (!message)
                return -ENOMEM;
        *message = (struct message){ .fds = calloc(MAX(n_fds, (size_t) 1), sizeof(int)) };
        memcpy(message->text, text, size);
        if (!message->fds)
                return -ENOMEM;

        for (; message->n_fds < n_fds; message->n_fds++) {
                message->fds[message->n_fds] = fcntl(fds[message->n_fds], F_DUPFD_CLOEXEC, 0);
                if (message->fds[message->n_fds] < 0)
                        return -errno;
        }

        *ret = STEAL(message);
        return 0;
}

static int send_text(struct notify *notify, const char *text, const int fds[], size_t n_fds) {
        const struct iovec iov = { (char *) text, strlen(text) };

        return datagram_send(&notify->datagram, &iov, 1, fds, n_fds);
}

/* Say what waits, as far as it is taken. What nobody will ever take is dropped: a service manager that went away asks for
 * nothing. */
static void say_waiting(struct notify *notify) {
        struct message *message;
        int r = 0;

        while (r != -EAGAIN && (message = STAILQ_FIRST(&notify->waiting))) {
                r = send_text(notify, message->text, message->fds, message->n_fds);
                if (r == -EAGAIN)
                        break;
                STAILQ_REMOVE_HEAD(&notify->waiting, next);
                notify->n_waiting--;
                message_free(message);
        }

        if (r != -EAGAIN && notify->watchdog_is_due) {
                r = send_text(notify, "WATCHDOG=1", NULL, 0);
                notify->watchdog_is_due = r == -EAGAIN;
        }

        if (r != -EAGAIN && notify->status[0]) {
                r = send_text(notify, notify->status, NULL, 0);
                if (r != -EAGAIN)
                        notify->status[0] = 0;
        }

        if (r == -EAGAIN)
                loop_timer_set(&notify->retry_timer, usec_add(clock_now(CLOCK_BOOTTIME), RETRY_US));
}

static void on_retry_timer(void *userdata) {
        say_waiting(userdata);
}

static void on_watchdog_timer(void *userdata) {
        struct notify *notify = userdata;

        notify->watchdog_is_due = true;
        say_waiting(notify);
        loop_timer_set(&notify->watchdog_timer, usec_add(clock_now(CLOCK_BOOTTIME), notify->watchdog_us));
}

int notify_new(struct notify **ret, struct loop *loop) {
        struct notify *notify;
        int r;

        notify = calloc(1, sizeof(*notify));
        if (!notify)
                return -ENOMEM;

        datagram_init(&notify->datagram, getenv("NOTIFY_SOCKET"));
        STAILQ_INIT(&notify->waiting);
        r = loop_timer_init(&notify->retry_timer, loop, on_retry_timer, notify);
        if (r >= 0)
                r = loop_timer_init(&notify->watchdog_timer, loop, on_watchdog_timer, notify);
        if (r < 0) {
                notify_free(notify);
                return r;
        }

        *ret = notify;
        return 0;
}

struct notify *notify_free(struct notify *notify) {
        struct message *message;

        if (!notify)
                return NULL;

        while ((message = STAILQ_FIRST(&notify->waiting))) {
                STAILQ_REMOVE_HEAD(&notify->waiting, next);
                message_free(message);
        }
        loop_timer_release(&notify->retry_timer);
        loop_timer_release(&notify->watchdog_timer);
        datagram_release(&notify->datagram);
        free(notify);
        return NULL;
}

bool notify_is_heard(const struct notify *notify) {
        return notify->datagram.path != NULL;
}

int notify_say(struct notify *notify, const char *text, const int fds[], size_t n_fds) {
        struct message *message;
        int r = -EAGAIN;

        if (!notify_is_heard(notify))
                return -ENOTCONN;

        if (STAILQ_EMPTY(&notify->waiting))
                r = send_text(notify, text, fds, n_fds);
        if (r != -EAGAIN)
                return r;

        if (notify->n_waiting >= WAITING_MAX)
                return -ENOBUFS;
        r = message_new(&message, text, fds, n_fds);
        if (r < 0)
                return r;
        STAILQ_INSERT_TAIL(&notify->waiting, message, next);
        notify->n_waiting++;
        if (!loop_timer_is_set(&notify->retry_timer))
                loop_timer_set(&notify->retry_timer, usec_add(clock_now(CLOCK_BOOTTIME), RETRY_US));
        return 0;
}

int notify_sayf(struct notify *notify, const char *format, ...) {
        char text[MESSAGE_MAX];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        return notify_say(notify, text, NULL, 0);
}

void notify_take_back(struct notify *notify, void (*fn)(void *userdata, int fd), void *userdata) {
        struct message_list before = STAILQ_HEAD_INITIALIZER(before);
        struct message *message;

        STAILQ_CONCAT(&before, &notify->waiting);
        while ((message = STAILQ_FIRST(&before))) {
                STAILQ_REMOVE_HEAD(&before, next);
                if (message->n_fds == 0) {
                        STAILQ_INSERT_TAIL(&notify->waiting, message, next);
                        continue;
                }
                while (message->n_fds > 0)
                        fn(userdata, message->fds[--message->n_fds]);
                notify->n_waiting--;
                message_free(message);
        }
}

void notify_status(struct notify *notify, const char *status) {
        if (!notify_is_heard(notify))
                return;

        (void) snprintf(notify->status, sizeof(notify->status), "STATUS=%s", status);
        if (!loop_timer_is_set(&notify->retry_timer))
                say_waiting(notify);
}

void notify_watchdog(struct notify *notify, uint64_t interval_us) {
        notify->watchdog_us = interval_us;
        loop_timer_set(&notify->watchdog_timer,
                notify_is_heard(notify) && interval_us > 0 ? usec_add(clock_now(CLOCK_BOOTTIME), interval_us)
                                                           : USEC_INFINITY);
}

/* Wait for EVENTS of a descriptor, until AT µs. */
static int wait_until(int fd, short events, uint64_t at_us) {
        struct pollfd wanted = { fd, events, 0 };
        int n;

        do {
                uint64_t now = clock_now(CLOCK_BOOTTIME);

                if (now >= at_us)
                        return -ETIMEDOUT;
                n = poll(&wanted, 1,
                        (int) MIN((at_us - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC, UINT64_C(60000)));
        } while (n == 0 || (n < 0 && errno == EINTR));

        return n < 0 ? -errno : 0;
}

int notify_settle(struct notify *notify, uint64_t timeout_us) {
        uint64_t until = usec_add(clock_now(CLOCK_BOOTTIME), timeout_us);
        int pair[2], r;

        if (!notify_is_heard(notify))
                return -ENOTCONN;

        /* The service manager closes what comes with BARRIER=1 when it has worked on all before it. */
        if (pipe2(pair, O_CLOEXEC) < 0)
                return -errno;
        r = notify_say(notify, "BARRIER=1", &pair[1], 1);
        closep(&pair[1]);
        while (r >= 0 && notify->n_waiting > 0) {
                r = wait_until(notify->datagram.fd, POLLOUT, until);
                if (r >= 0)
                        say_waiting(notify);
        }
        if (r >= 0)
                r = wait_until(pair[0], 0, until); /* POLLHUP comes unasked */
        closep(&pair[0]);
        return r;
}
