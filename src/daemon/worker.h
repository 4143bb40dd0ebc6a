/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon: a thread for calls that may wait, such as reading a file; the loop goes on, and is told when one is done */
#pragma once

#include <sys/queue.h>

struct loop;
struct worker;

/* A job, embedded in what it is about. It belongs to the worker from worker_submit() until done() is called. */
struct worker_job {
        STAILQ_ENTRY(worker_job) next;
        void (*work)(struct worker_job *job); /* in the thread, one at a time: may wait */
        void (*done)(struct worker_job *job); /* in the loop: must not wait */
};

/* Make a worker. Its thread starts with the first job. LOOP must outlive it. Returns negative errno. */
int worker_new(struct worker **ret, struct loop *loop);

/* End the thread, and free, without waiting. done() is called for each job that the thread is not at, even if it was never
 * begun. If the thread is at one, both are left to the end of the process, and so must be what the job uses. Returns NULL, or
 * the worker in this last case. */
struct worker *worker_free(struct worker *worker);

/* Have a job done after those that were submitted before. Returns negative errno if there is no thread; then the job is
 * still the caller's. */
int worker_submit(struct worker *worker, struct worker_job *job);
