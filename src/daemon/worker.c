/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "daemon/loop.h"

/* Files are parsed in it, and sanitizers want some, too. */
#define STACK_SIZE ((size_t) 512 * 1024)

STAILQ_HEAD(job_list, worker_job);

struct worker {
        struct loop *loop;
        sd_event_source *source;
        int done_fd; /* readable while there are jobs in `finished` */
        pthread_t thread;
        bool has_thread;

        /* What both threads use, under the lock. */
        pthread_mutex_t lock;
        pthread_cond_t wanted;
        struct job_list waiting;
        struct job_list finished;
        bool is_busy;
        bool is_ending;
};

static void *run(void *userdata) {
        static const uint64_t one = 1;
        struct worker *worker = userdata;
        struct worker_job *job;

        (void) pthread_mutex_lock(&worker->lock);
        while (!worker->is_ending) {
                job = STAILQ_FIRST(&worker->waiting);
                if (!job) {
                        (void) pthread_cond_wait(&worker->wanted, &worker->lock);
                        continue;
                }

                STAILQ_REMOVE_HEAD(&worker->waiting, next);
                worker->is_busy = true;
                (void) pthread_mutex_unlock(&worker->lock);
                job->work(job);
                (void) pthread_mutex_lock(&worker->lock);
                worker->is_busy = false;
                STAILQ_INSERT_TAIL(&worker->finished, job, next);
                (void) write(worker->done_fd, &one, sizeof(one));
        }
        (void) pthread_mutex_unlock(&worker->lock);
        return NULL;
}

static void deliver(struct job_list *jobs) {
        struct worker_job *job;

        while ((job = STAILQ_FIRST(jobs))) {
                STAILQ_REMOVE_HEAD(jobs, next);
                job->done(job);
        }
}

static int on_done(_unused_ sd_event_source *source, int fd, _unused_ uint32_t events, void *userdata) {
        struct worker *worker = userdata;
        struct job_list finished = STAILQ_HEAD_INITIALIZER(finished);
        uint64_t n;

        (void) read(fd, &n, sizeof(n));
        (void) pthread_mutex_lock(&worker->lock);
        STAILQ_CONCAT(&finished, &worker->finished);
        (void) pthread_mutex_unlock(&worker->lock);
        deliver(&finished);
        return 0;
}

int worker_new(struct worker **ret, struct loop *loop) {
        struct worker *worker;
        int r;

        worker = calloc(1, sizeof(*worker));
        if (!worker)
                return -ENOMEM;

        worker->loop = loop;
        STAILQ_INIT(&worker->waiting);
        STAILQ_INIT(&worker->finished);
        (void) pthread_mutex_init(&worker->lock, NULL);
        (void) pthread_cond_init(&worker->wanted, NULL);
        worker->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = worker->done_fd < 0 ? -errno : 0;
        if (r >= 0)
                r = sd_event_add_io(
                        loop_event(loop), &worker->source, worker->done_fd, EPOLLIN, on_done, worker);
        if (r < 0) {
                worker_free(worker);
                return r;
        }

        *ret = worker;
        return 0;
}

static int start(struct worker *worker) {
        pthread_attr_t attributes;
        sigset_t all, before;
        int r;

        r = pthread_attr_init(&attributes);
        if (r != 0)
                return -r;

        /* Signals are read from a descriptor, by the thread that serves: they must stay blocked everywhere. */
        (void) sigfillset(&all);
        (void) pthread_sigmask(SIG_SETMASK, &all, &before);
        (void) pthread_attr_setstacksize(&attributes, STACK_SIZE);
        r = pthread_create(&worker->thread, &attributes, run, worker);
        (void) pthread_sigmask(SIG_SETMASK, &before, NULL);
        (void) pthread_attr_destroy(&attributes);
        worker->has_thread = r == 0;
        return -r;
}

int worker_submit(struct worker *worker, struct worker_job *job) {
        int r;

        if (!worker->has_thread) {
                r = start(worker);
                if (r < 0)
                        return r;
        }

        (void) pthread_mutex_lock(&worker->lock);
        STAILQ_INSERT_TAIL(&worker->waiting, job, next);
        (void) pthread_cond_signal(&worker->wanted);
        (void) pthread_mutex_unlock(&worker->lock);
        return 0;
}

struct worker *worker_free(struct worker *worker) {
        struct job_list left = STAILQ_HEAD_INITIALIZER(left);
        bool is_busy;

        if (!worker)
                return NULL;

        (void) pthread_mutex_lock(&worker->lock);
        worker->is_ending = true;
        is_busy = worker->is_busy;
        STAILQ_CONCAT(&left, &worker->finished);
        STAILQ_CONCAT(&left, &worker->waiting);
        (void) pthread_cond_signal(&worker->wanted);
        (void) pthread_mutex_unlock(&worker->lock);

        deliver(&left);
        worker->source = sd_event_source_disable_unref(worker->source);
        if (is_busy)
                return worker;

        if (worker->has_thread)
                (void) pthread_join(worker->thread, NULL);
        if (worker->done_fd >= 0)
                (void) close(worker->done_fd);
        (void) pthread_cond_destroy(&worker->wanted);
        (void) pthread_mutex_destroy(&worker->lock);
        free(worker);
        return NULL;
}
