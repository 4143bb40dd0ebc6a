/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/errand.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "base/cleanup.h"
#include "daemon/loop.h"

/* Enough to parse files, and for sanitizers. In bytes. */
#define STACK_SIZE ((size_t) 512 * 1024)

/* A thread that has nothing to do for so long ends: while there is one, each call of the other with a descriptor costs more. */
#define IDLE_S 1

STAILQ_HEAD(errand_list, errand);

struct errands {
        struct loop *loop;
        sd_event_source *source;
        int done_fd; /* readable while there are errands in `finished` */
        pthread_t thread;
        bool has_thread;

        /* Both threads use these, under the lock. */
        pthread_mutex_t lock;
        pthread_cond_t wanted;
        struct errand_list waiting;
        struct errand_list finished;
        bool is_busy;
        bool is_ending;
        bool is_over; /* the thread has nothing to do any more, and ends */
};

/* Wait for an errand, with the lock. Returns false if there is none in a while. */
static bool wait_for_one(struct errands *errands) {
        struct timespec until;

        (void) clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += IDLE_S;
        return pthread_cond_timedwait(&errands->wanted, &errands->lock, &until) != ETIMEDOUT ||
                !STAILQ_EMPTY(&errands->waiting);
}

static void *run(void *userdata) {
        static const uint64_t one = 1;
        struct errands *errands = userdata;
        struct errand *errand;

        (void) pthread_mutex_lock(&errands->lock);
        while (!errands->is_ending && !errands->is_over) {
                errand = STAILQ_FIRST(&errands->waiting);
                if (!errand) {
                        errands->is_over = !wait_for_one(errands);
                        continue;
                }

                STAILQ_REMOVE_HEAD(&errands->waiting, next);
                errands->is_busy = true;
                (void) pthread_mutex_unlock(&errands->lock);
                errand->work(errand);
                (void) pthread_mutex_lock(&errands->lock);
                errands->is_busy = false;
                STAILQ_INSERT_TAIL(&errands->finished, errand, next);
                /* This fails only if done_fd is readable already. */
                if (write(errands->done_fd, &one, sizeof(one)) < 0)
                        continue;
        }
        (void) pthread_mutex_unlock(&errands->lock);
        return NULL;
}

static void deliver(struct errand_list *list) {
        struct errand *errand;

        while ((errand = STAILQ_FIRST(list))) {
                STAILQ_REMOVE_HEAD(list, next);
                errand->done(errand);
        }
}

static int on_done(_unused_ sd_event_source *source, int fd, _unused_ uint32_t events, void *userdata) {
        struct errands *errands = userdata;
        struct errand_list finished = STAILQ_HEAD_INITIALIZER(finished);
        uint64_t n;

        if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
                return -errno;
        (void) pthread_mutex_lock(&errands->lock);
        STAILQ_CONCAT(&finished, &errands->finished);
        (void) pthread_mutex_unlock(&errands->lock);
        deliver(&finished);
        return 0;
}

int errands_new(struct errands **ret, struct loop *loop) {
        pthread_condattr_t attributes;
        struct errands *errands;
        int r;

        errands = calloc(1, sizeof(*errands));
        if (!errands)
                return -ENOMEM;

        errands->loop = loop;
        STAILQ_INIT(&errands->waiting);
        STAILQ_INIT(&errands->finished);
        (void) pthread_mutex_init(&errands->lock, NULL);
        (void) pthread_condattr_init(&attributes);
        (void) pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        (void) pthread_cond_init(&errands->wanted, &attributes);
        (void) pthread_condattr_destroy(&attributes);
        errands->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = errands->done_fd < 0 ? -errno : 0;
        if (r >= 0)
                r = sd_event_add_io(
                        loop_event(loop), &errands->source, errands->done_fd, EPOLLIN, on_done, errands);
        if (r < 0) {
                errands_free(errands);
                return r;
        }

        *ret = errands;
        return 0;
}

static int start(struct errands *errands) {
        pthread_attr_t attributes;
        sigset_t all, before;
        int r;

        r = pthread_attr_init(&attributes);
        if (r != 0)
                return -r;

        /* The thread that serves reads signals from a descriptor: they must stay blocked in all threads. */
        (void) sigfillset(&all);
        (void) pthread_sigmask(SIG_SETMASK, &all, &before);
        (void) pthread_attr_setstacksize(&attributes, STACK_SIZE);
        r = pthread_create(&errands->thread, &attributes, run, errands);
        (void) pthread_sigmask(SIG_SETMASK, &before, NULL);
        (void) pthread_attr_destroy(&attributes);
        errands->has_thread = r == 0;
        return -r;
}

int errand_begin(struct errands *errands, struct errand *errand) {
        int r = 0;

        (void) pthread_mutex_lock(&errands->lock);
        if (errands->is_over) {
                /* It needs nobody any more to come to its end. */
                (void) pthread_mutex_unlock(&errands->lock);
                (void) pthread_join(errands->thread, NULL);
                errands->is_over = errands->has_thread = false;
                (void) pthread_mutex_lock(&errands->lock);
        }
        if (!errands->has_thread)
                r = start(errands);
        if (r < 0) {
                (void) pthread_mutex_unlock(&errands->lock);
                return r;
        }

        STAILQ_INSERT_TAIL(&errands->waiting, errand, next);
        (void) pthread_cond_signal(&errands->wanted);
        (void) pthread_mutex_unlock(&errands->lock);
        return 0;
}

struct errands *errands_free(struct errands *errands) {
        struct errand_list left = STAILQ_HEAD_INITIALIZER(left);
        bool is_busy;

        if (!errands)
                return NULL;

        (void) pthread_mutex_lock(&errands->lock);
        errands->is_ending = true;
        is_busy = errands->is_busy;
        STAILQ_CONCAT(&left, &errands->finished);
        STAILQ_CONCAT(&left, &errands->waiting);
        (void) pthread_cond_signal(&errands->wanted);
        (void) pthread_mutex_unlock(&errands->lock);

        deliver(&left);
        errands->source = sd_event_source_disable_unref(errands->source);
        if (is_busy)
                return errands;

        if (errands->has_thread)
                (void) pthread_join(errands->thread, NULL);
        if (errands->done_fd >= 0)
                (void) close(errands->done_fd);
        (void) pthread_cond_destroy(&errands->wanted);
        (void) pthread_mutex_destroy(&errands->lock);
        free(errands);
        return NULL;
}
