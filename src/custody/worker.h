/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* custody: worker: processes that make the calls on descriptors from outside that may wait */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A worker is a process for one job. It shares our descriptor table: its close(2) takes a descriptor out of our table at once,
 * however long the call takes. It is not a thread: if close(2) never returns, our exit does not wait. It shares our memory, too, so
 * it costs as little as a thread. While there is no worker, the table is ours alone, and the kernel finds descriptors faster. */

/* Descriptors of a job. */
#define JOB_MAX 512

/* Bytes of all farewells of a job. No socket takes a longer one at once. */
#define JOB_BYTES_MAX ((size_t) 256 * 1024)

enum task_kind {
        TASK_CLOSE,
        TASK_DRAIN, /* read what has come, so that TCP ends in order, and close */
        TASK_KEEP,  /* turn SO_LINGER off for those who hold a copy, and close */
        TASK_SAY,   /* send the farewell; close only if it could not be sent, or the peer is gone */
        TASK_PART,  /* send the farewell, and close */
        TASK_TELL,  /* send the farewell, and leave it open */
};

struct task {
        int fd;
        uint32_t farewell_size;
        uint8_t kind; /* enum task_kind */
        bool is_said; /* the farewell was sent */
};

struct job {
        uint32_t n_done; /* tasks, for the case that the worker dies */
        uint32_t n_tasks;
        struct task tasks[JOB_MAX];
        char farewells[JOB_BYTES_MAX]; /* one after the other */
};

struct workplace;

/* Make N places, each for a job and its worker. Only places in use take memory. Returns NULL without memory. */
struct workplace *workplaces_new(size_t n);

/* Free the places. There must be no worker at any. */
void workplaces_free(struct workplace *places, size_t n);

struct job *workplace_job(struct workplace *places, size_t i);

/* Can there be workers? Under valgrind there cannot. */
bool worker_is_possible(void);

/* Start a worker for the job at a place. The place is the worker's until its process has ended (SIGCHLD). The worker ends with us.
 * Returns its process id, or negative errno. */
pid_t worker_start(struct workplace *places, size_t i);

/* Do a job where we are. */
void worker_do(struct job *job);

/* As long as the kernel lets the name of a process be, in bytes. */
#define WORKER_NAME_SIZE 16

/* Give this process, and those that it begins from here on, a name, and put the former one into FORMER. A process that is left behind
 * gets one in brackets, for those systemd does not mention; and it has to have it from its beginning, because systemd may look before
 * it has run at all. */
void worker_set_name(const char *name, char former[WORKER_NAME_SIZE]);

/* The close of a socket with SO_LINGER waits until a signal comes. From FIRST_USEC µs on one comes each millisecond; with 0, none
 * any more. */
void worker_end_lingers(unsigned first_usec);
