/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handover/goodbye.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/printable.h"
#include "custody/worker.h"

#define PROCESS_NAME "(sc-part)"

/* How long the first close of a last copy may wait for a peer, in µs. */
#define LINGER_USEC 1000

/* How long it may take from the end of a parcel until all that was in it is closed, in ms: the kernel reports the end first. */
#define GRACE_MS 100

struct goodbye {
        struct journal *journal;
        const struct parcel *parcels;
        size_t n_parcels;
        struct connection *const *connections;
        size_t n;
};

/* Is this a socket whose copy somebody could miss or wait for? Lines to the journal go through one of another kind. What is no
 * socket stays: its close(2) may never return. */
static bool has_end(int fd) {
        int type;
        socklen_t size = sizeof(type);

        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type != SOCK_DGRAM;
}

/* Return how many slots our descriptor table has, or 0. */
static size_t count_slots(void) {
        char line[256]; /* longer lines come in parts */
        size_t n = 0;
        FILE *status;

        status = fopen("/proc/self/status", "re");
        while (status && n == 0 && fgets(line, sizeof(line), status))
                (void) sscanf(line, "FDSize: %zu", &n);
        if (status)
                (void) fclose(status);
        return n;
}

/* Close the sockets of which the daemon has not closed its own copies yet: agents wait for the end of theirs, and we for that of
 * the parcels. Returns false if that cannot be done. */
static bool drop_all_but_ours(const struct goodbye *goodbye) {
        size_t n_slots = count_slots();
        bool *is_ours;

        is_ours = calloc(n_slots, sizeof(*is_ours));
        if (n_slots == 0 || !is_ours)
                return false;

        for (size_t i = 0; i < goodbye->n_parcels; i++)
                is_ours[goodbye->parcels[i].sender] = true;
        for (size_t i = 0; i < goodbye->n; i++)
                is_ours[goodbye->connections[i]->fd] = true;

        worker_end_lingers(LINGER_USEC);
        for (size_t fd = STDERR_FILENO + 1; fd < n_slots; fd++)
                if (!is_ours[fd] && has_end((int) fd))
                        (void) close((int) fd);
        worker_end_lingers(0);

        free(is_ours);
        return true;
}

/* Wait until nobody has a parcel any more. Returns whether somebody has taken over. */
static bool wait_for_end(const struct goodbye *goodbye) {
        bool is_taken_over = false;

        for (size_t i = 0; i < goodbye->n_parcels; i++) {
                char word;
                ssize_t n;

                /* ECONNRESET comes before what else there is to read. */
                while ((n = recv(goodbye->parcels[i].sender, &word, sizeof(word), 0)) > 0 ||
                        (n < 0 && (errno == EINTR || errno == ECONNRESET)))
                        is_taken_over = is_taken_over || n > 0;
        }
        return is_taken_over;
}

static void say(const struct goodbye *goodbye) {
        struct job *job;
        size_t size = 0;

        job = calloc(1, sizeof(*job));
        if (!job)
                return;

        for (size_t i = 0; i < goodbye->n; i++) {
                struct slice farewell = connection_farewell(goodbye->connections[i]);

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
                        .fd = goodbye->connections[i]->fd,
                        .farewell_size = (uint32_t) farewell.size,
                        .kind = TASK_TELL,
                };
        }
        worker_do(job);
        free(job);

        journal_say(goodbye->journal, PARTED, NULL,
                "Nobody took over %zu kept connection%s: each was closed after its farewell.", goodbye->n,
                plural(goodbye->n));
}

static bool lingers(int fd) {
        struct linger linger;
        socklen_t size = sizeof(linger);

        return getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &size) == 0 && linger.l_onoff;
}

/* An exit closes without waiting for a peer, but only after it has come to all descriptors. A file from outside may be among those
 * that the daemon had not closed yet, and its server may make the exit wait: nobody who has not asked for it waits for that. */
static _Noreturn void leave(const struct goodbye *goodbye) {
        worker_end_lingers(LINGER_USEC);
        for (size_t i = 0; i < goodbye->n; i++)
                if (!lingers(goodbye->connections[i]->fd))
                        (void) close(goodbye->connections[i]->fd);
        _exit(0);
}

/* The signals that end the daemon stay blocked: whoever sends them to all its processes wants a goodbye, too. */
static _Noreturn void stay(const struct goodbye *goodbye, bool says) {
        if (!drop_all_but_ours(goodbye))
                _exit(0);

        if (!wait_for_end(goodbye) && says)
                say(goodbye);
        (void) poll(NULL, 0, GRACE_MS);
        leave(goodbye);
}

void goodbye_leave(struct journal *journal, const struct parcel parcels[], size_t n_parcels,
        struct connection *const connections[], size_t n, bool says) {
        const struct goodbye goodbye = { journal, parcels, n_parcels, connections, n };
        char ours[WORKER_NAME_SIZE], theirs[WORKER_NAME_SIZE];

        if (n == 0)
                return;

        worker_set_name(PROCESS_NAME, ours);
        if (fork() == 0)
                stay(&goodbye, says);
        worker_set_name(ours, theirs);
}

void goodbye_cancel(const int parcels[], size_t n) {
        for (size_t i = 0; i < n; i++)
                (void) send(parcels[i], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}
