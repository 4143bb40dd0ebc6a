/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handover/goodbye.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/printable.h"
#include "custody/worker.h"

/* systemd does not mention processes in brackets that are left behind: they are helpers. */
#define PROCESS_NAME "(sc-part)"

/* The close of a socket with SO_LINGER waits until a signal comes. While ours are closed, one comes this often. */
#define LINGER_USEC 1000

static void on_alarm(_unused_ int signal_number) {
}

static void let_nothing_linger(void) {
        static const struct sigaction action = { .sa_handler = on_alarm };
        static const struct itimerval timer = { { 0, LINGER_USEC }, { 0, LINGER_USEC } };

        (void) sigaction(SIGALRM, &action, NULL);
        (void) setitimer(ITIMER_REAL, &timer, NULL);
}

/* Returns whether somebody has taken over. */
static bool listen_to(int line) {
        char word;
        ssize_t n;

        do
                n = recv(line, &word, sizeof(word), 0);
        while (n < 0 && errno == EINTR);
        return n == sizeof(word);
}

static void part(struct connection *const connections[], size_t n) {
        struct job *job;
        size_t size = 0;

        job = calloc(1, sizeof(*job));
        if (!job)
                return;

        for (size_t i = 0; i < n; i++) {
                struct slice farewell = connection_farewell(connections[i]);

                if (job->n_tasks == JOB_MAX || farewell.size > sizeof(job->farewells) - size) {
                        worker_do(job);
                        job->n_tasks = 0;
                        size = 0;
                }
                if (farewell.size > sizeof(job->farewells))
                        farewell.size = 0; /* no socket would take it */
                memcpy(job->farewells + size, farewell.data, farewell.size);
                size += farewell.size;
                job->tasks[job->n_tasks++] = (struct task){
                        .fd = connections[i]->fd,
                        .farewell_size = (uint32_t) farewell.size,
                        .kind = TASK_PART,
                };
        }
        worker_do(job);
        free(job);
}

/* The signals that end the daemon stay blocked: whoever sends them to all its processes wants a goodbye, too. */
static _Noreturn void stay(
        struct journal *journal, int line, struct connection *const connections[], size_t n) {
        (void) prctl(PR_SET_NAME, PROCESS_NAME);
        if (listen_to(line)) {
                let_nothing_linger();
                for (size_t i = 0; i < n; i++)
                        (void) close(connections[i]->fd);
        } else {
                let_nothing_linger();
                part(connections, n);
                journal_say(journal, PARTED, NULL,
                        "Nobody took over %zu kept connection%s: each was closed after its farewell.", n,
                        plural(n));
        }
        _exit(0);
}

void goodbye_leave(struct journal *journal, int line, struct connection *const connections[], size_t n) {
        if (n > 0 && fork() == 0)
                stay(journal, line, connections, n);
}

void goodbye_cancel(const int parcels[], size_t n) {
        for (size_t i = 0; i < n; i++)
                (void) send(parcels[i], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}
