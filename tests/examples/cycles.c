/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Threads that find and save connections as fast as they can: cycles SOCKET [legacy|greeting] THREADS CYCLES
 *
 * Each thread has a handle and a connection of its own. A connection that is found must be the one that was saved. */

#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "scache.h"

struct job {
        pthread_t thread;
        const char *path;
        unsigned flags;
        int number;
        long n_cycles;
        long n_misses;
        long slowest_us; /* of its requests */
        int error;
        const char *where;
};

static ino_t identity(int fd) {
        struct stat st;

        return fstat(fd, &st) < 0 ? 0 : st.st_ino;
}

static long now_us(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void note_time(struct job *job, long start_us) {
        long us = now_us() - start_us;

        if (us > job->slowest_us)
                job->slowest_us = us;
}

static int fail(struct job *job, const char *where, int error) {
        job->where = where;
        job->error = error;
        return error;
}

static int cycle(struct job *job, struct scache *scache, int pair[2], ino_t *ino) {
        char destination[64], endpoint[64];
        long start_us;
        size_t size;
        int fd, r;

        snprintf(destination, sizeof(destination), "smtp\nexample%d.com\n25", job->number);
        snprintf(endpoint, sizeof(endpoint), "smtp\n192.0.2.%d\n25", job->number);

        start_us = now_us();
        r = scache_find_dest(scache, destination, &fd);
        note_time(job, start_us);
        if (r == -ENOENT) {
                /* The first time, or the service was restarted and did not keep it. */
                job->n_misses++;
                close(pair[0]);
                if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                        return fail(job, "socketpair", -errno);
                *ino = identity(pair[1]);
                fd = pair[1];
        } else if (r < 0)
                return fail(job, "find", r);
        else if (identity(fd) != *ino)
                return fail(job, "identity", -EBADE);
        else if (strcmp(scache_get_property(scache, &size), "endpoint property") != 0 || size != 17 ||
                strcmp(scache_get_destination_property(scache, NULL), "") != 0)
                return fail(job, "properties", -EBADE);

        start_us = now_us();
        r = scache_save(scache, 100, destination, "", endpoint, "endpoint property", "QUIT\r\n", fd);
        note_time(job, start_us);
        close(fd);
        return r < 0 ? fail(job, "save", r) : 0;
}

static void *run(void *userdata) {
        struct job *job = userdata;
        struct scache *scache;
        int pair[2] = { -1, -1 };
        ino_t ino = 0;
        int r;

        r = scache_new(&scache, job->path, job->flags);
        if (r < 0) {
                fail(job, "new", r);
                return NULL;
        }
        /* Sanitizers and a busy machine are slow, and this is not about time. */
        scache_set_timeout(scache, UINT64_C(60000000));

        for (long i = 0; i < job->n_cycles; i++)
                if (cycle(job, scache, pair, &ino) < 0)
                        break;

        if (pair[0] >= 0)
                close(pair[0]);
        scache_free(scache);
        return NULL;
}

int main(int argc, char *argv[]) {
        struct job jobs[64];
        int n_jobs, status = 0;

        if (argc != 5) {
                fprintf(stderr, "usage: cycles SOCKET legacy|greeting THREADS CYCLES\n");
                return 64;
        }
        n_jobs = atoi(argv[3]);
        if (n_jobs < 1 || n_jobs > 64)
                return 64;

        for (int i = 0; i < n_jobs; i++) {
                jobs[i] = (struct job){
                        .path = argv[1],
                        .flags = strcmp(argv[2], "legacy") == 0 ? SCACHE_LEGACY : 0,
                        .number = i,
                        .n_cycles = atol(argv[4]),
                };
                if (pthread_create(&jobs[i].thread, NULL, run, &jobs[i]) != 0)
                        return 71;
        }

        for (int i = 0; i < n_jobs; i++) {
                pthread_join(jobs[i].thread, NULL);
                if (jobs[i].error < 0) {
                        fprintf(stderr, "thread %d: %s: %s\n", i, jobs[i].where, strerror(-jobs[i].error));
                        status = 1;
                }
                printf("thread %d: %ld misses, slowest request %ld us\n", i, jobs[i].n_misses,
                        jobs[i].slowest_us);
        }
        return status;
}
