/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* custody: worker: processes that make the calls on descriptors from outside that may wait */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A worker shares our descriptor table, and is not a thread: what it closes is no longer ours, however long its close(2)
 * takes, and if that never ends, our exit does not wait for it, as it would for a thread. A worker is forked by the spawner,
 * which is forked while the heap is small: so no worker has a copy of what is parked. The spawner touches no descriptor from
 * outside, and so never waits.
 *
 * A job is a place in shared memory; its number goes to the worker that takes it, and comes back when it is done. */

/* Descriptors of a job. */
#define JOB_MAX 128

/* Bytes of all farewells of a job. No socket takes a longer one at once. */
#define JOB_BYTES_MAX ((size_t) 256 * 1024)

enum task_kind {
        TASK_CLOSE,
        TASK_DRAIN, /* read what has come, so that TCP ends in order, and close */
        TASK_KEEP,  /* turn SO_LINGER off for those who hold a copy, and close */
        TASK_SAY,   /* send the farewell; close only if it could not be sent, or the peer is gone */
        TASK_PART,  /* send the farewell, and close */
};

struct task {
        int fd;
        uint32_t farewell_size;
        uint8_t kind; /* enum task_kind */
        bool is_said; /* the farewell was sent */
};

struct job {
        pid_t worker;    /* which has taken it */
        uint32_t n_done; /* tasks, for the case that the worker dies */
        uint32_t n_tasks;
        struct task tasks[JOB_MAX];
        char farewells[JOB_BYTES_MAX]; /* one after the other */
};

/* What goes through the channel, besides the numbers of jobs. */
enum worker_word {
        WORKER_START = 1000, /* to the spawner: fork a worker */
        WORKER_STOP,         /* to a worker: exit */
        WORKER_STARTED,
        WORKER_FAILED, /* from the spawner: could not fork */
};

/* Fork the spawner. It listens to SPAWNING, its workers to WORKING, both ends of SOCK_SEQPACKET pairs; all say what they have
 * to say through WORKING. They exit when the other ends are shut down, or when we die. Returns the process id of the spawner;
 * -EOPNOTSUPP where this cannot be done, as under valgrind, or another negative errno. */
pid_t worker_spawn(int spawning, int working, struct job jobs[]);

/* Do a job, wherever that is: a worker for its own part, or we where there is none. */
void worker_do(struct job *job);
