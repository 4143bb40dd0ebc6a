/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/loop.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* The events of one round; further ones come in the next round. */
#define ROUND_EVENTS_MAX 64

/* Objects are at least 8-byte aligned: the kind fits into the lowest bits of the address. */
#define KIND_MASK UINT64_C(7)

struct loop {
        int epoll_fd;
        sd_event *event;
        uint64_t now_us; /* in this round; 0 until loop_now() is called */
        bool touched;    /* sd-event must look at its sources */
        bool finished;   /* sd_event_exit() has been called and taken effect */
        struct {
                loop_ready_fn fn;
                void *userdata;
        } ready[_LOOP_KIND_MAX];
        loop_round_fn round_fn;
        void *round_userdata;
        struct epoll_event events[ROUND_EVENTS_MAX]; /* of this round */
        int n_events;
};

/* The number of sd-event's sources that get a turn in one round: endless signals and timers must not keep agents waiting. */
#define ROUND_SOURCES_MAX 64

/* The kind of sd-event's own descriptor. */
#define KIND_SD_EVENT _LOOP_KIND_MAX

static struct epoll_event tagged(unsigned kind, void *object, uint32_t events) {
        return (struct epoll_event){ .events = events, .data.u64 = (uint64_t) (uintptr_t) object | kind };
}

static unsigned kind_of(const struct epoll_event *event) {
        return (unsigned) (event->data.u64 & KIND_MASK);
}

static void *object_of(const struct epoll_event *event) {
        return (void *) (uintptr_t) (event->data.u64 & ~KIND_MASK);
}

int loop_new(struct loop **ret, sd_event *event) {
        struct epoll_event tag = tagged(KIND_SD_EVENT, NULL, EPOLLIN);
        struct loop *loop;

        loop = calloc(1, sizeof(*loop));
        if (!loop)
                return -ENOMEM;

        loop->event = sd_event_ref(event);
        loop->touched = true;
        loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (loop->epoll_fd < 0 ||
                epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, sd_event_get_fd(event), &tag) < 0) {
                int r = -errno;

                loop_free(loop);
                return r;
        }

        *ret = loop;
        return 0;
}

struct loop *loop_free(struct loop *loop) {
        if (!loop)
                return NULL;

        closep(&loop->epoll_fd);
        sd_event_unref(loop->event);
        free(loop);
        return NULL;
}

void loop_on_ready(struct loop *loop, enum loop_kind kind, loop_ready_fn fn, void *userdata) {
        loop->ready[kind].fn = fn;
        loop->ready[kind].userdata = userdata;
}

void loop_on_round(struct loop *loop, loop_round_fn fn, void *userdata) {
        loop->round_fn = fn;
        loop->round_userdata = userdata;
}

int loop_add(struct loop *loop, int fd, enum loop_kind kind, void *object, uint32_t events) {
        struct epoll_event tag = tagged(kind, object, events);

        return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &tag) < 0 ? -errno : 0;
}

int loop_modify(struct loop *loop, int fd, enum loop_kind kind, void *object, uint32_t events) {
        struct epoll_event tag = tagged(kind, object, events);

        return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, fd, &tag) < 0 ? -errno : 0;
}

void loop_remove(struct loop *loop, int fd, void *object) {
        (void) epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);

        /* Events of this round that the object has not handled yet must not reach it any more. */
        for (int i = 0; i < loop->n_events; i++)
                if (object_of(&loop->events[i]) == object)
                        loop->events[i].events = 0;
}

uint64_t loop_now(struct loop *loop) {
        if (loop->now_us == 0)
                loop->now_us = clock_now(CLOCK_BOOTTIME);
        return loop->now_us;
}

void loop_touch(struct loop *loop) {
        loop->touched = true;
}

sd_event *loop_event(const struct loop *loop) {
        return loop->event;
}

/* Run the sources of sd-event that are ready, and set its timers for the time until the next call. If some are left, the loop
 * stays touched. */
_cold_ static int run_event(struct loop *loop) {
        for (unsigned i = 0; i < ROUND_SOURCES_MAX; i++) {
                int r;

                loop->touched = false;
                r = sd_event_run(loop->event, 0);
                if (r < 0)
                        return r;
                loop->finished = sd_event_get_state(loop->event) == SD_EVENT_FINISHED;
                if ((r == 0 && !loop->touched) || loop->finished)
                        return 0;
        }

        loop->touched = true;
        return 0;
}

static int wait_for_events(struct loop *loop, uint64_t timeout_us) {
        int timeout_ms = -1, n;

        if (timeout_us < USEC_INFINITY)
                timeout_ms = (int) MIN((timeout_us + USEC_PER_MSEC - 1) / USEC_PER_MSEC, UINT64_C(60000));

        n = epoll_wait(loop->epoll_fd, loop->events, ROUND_EVENTS_MAX, timeout_ms);
        if (n < 0 && errno != EINTR)
                return -errno;

        loop->n_events = MAX(n, 0);
        loop->now_us = 0;
        return 0;
}

/* Handle the events of one kind, except those of objects that loop_remove() has removed in this round. Returns the number of
 * events. */
static int dispatch(struct loop *loop, unsigned kind) {
        int n = 0;

        for (int i = 0; i < loop->n_events; i++) {
                const struct epoll_event *event = &loop->events[i];

                if (kind_of(event) != kind)
                        continue;
                n++;
                if (event->events != 0)
                        loop->ready[kind].fn(loop->ready[kind].userdata, object_of(event), event->events);
        }

        return n;
}

static void dispatch_all(struct loop *loop) {
        int n = 0;

        for (unsigned kind = 0; kind < _LOOP_KIND_MAX && n < loop->n_events; kind++)
                n += dispatch(loop, kind);

        /* Any event that is left is sd-event's. */
        loop->touched = loop->touched || n < loop->n_events;
        loop->n_events = 0;
}

int loop_run_once(struct loop *loop, uint64_t *timeout_us) {
        int r;

        r = wait_for_events(loop, loop->touched ? 0 : *timeout_us);
        if (r < 0)
                return r;

        dispatch_all(loop);

        if (loop->touched) {
                r = run_event(loop);
                if (r < 0)
                        return r;
                if (loop->finished)
                        return 0;
        }

        *timeout_us = loop->round_fn ? loop->round_fn(loop->round_userdata) : USEC_INFINITY;
        return 0;
}

int loop_run(struct loop *loop) {
        uint64_t timeout_us = 0;
        int r, code;

        do {
                r = loop_run_once(loop, &timeout_us);
                if (r < 0)
                        return r;
        } while (!loop->finished);

        r = sd_event_get_exit_code(loop->event, &code);
        return r < 0 ? r : code;
}
