/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/disposal.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "custody/descriptor.h"

/* A thread makes one call. Sanitizers and a large thread-local storage want some of its stack, too. */
#define STACK_SIZE ((size_t) 128 * 1024)

/* What one message brings beyond the last place: it comes with two at most. */
#define PLACES_MAX (DISPOSAL_MAX + 1)

struct place {
        struct disposal *disposal;
        atomic_int fd; /* -1: free; set by us, taken back by the thread */
        bool has_thread;
};

struct disposal {
        struct place places[PLACES_MAX];
        atomic_uint n_taken; /* the last that a thread touches */
        unsigned n_waiting;  /* of those, without a thread so far */
};

static void *close_one(void *userdata) {
        struct place *place = userdata;
        struct disposal *disposal = place->disposal;

        (void) close(atomic_load(&place->fd));
        atomic_store(&place->fd, -1);
        atomic_fetch_sub(&disposal->n_taken, 1);
        return NULL;
}

/* Start the thread for a place. */
static int start(struct place *place) {
        pthread_attr_t attributes;
        sigset_t all, before;
        pthread_t thread;
        int r;

        r = pthread_attr_init(&attributes);
        if (r != 0)
                return -r;

        /* Signals are read from a descriptor, by the one thread that serves: they must stay blocked everywhere. */
        (void) sigfillset(&all);
        (void) pthread_sigmask(SIG_SETMASK, &all, &before);
        (void) pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        (void) pthread_attr_setstacksize(&attributes, STACK_SIZE);
        place->has_thread = true;
        r = pthread_create(&thread, &attributes, close_one, place);
        if (r != 0)
                place->has_thread = false;
        (void) pthread_sigmask(SIG_SETMASK, &before, NULL);
        (void) pthread_attr_destroy(&attributes);
        return -r;
}

int disposal_new(struct disposal **ret) {
        struct disposal *disposal;

        disposal = calloc(1, sizeof(*disposal));
        if (!disposal)
                return -ENOMEM;

        for (size_t i = 0; i < PLACES_MAX; i++) {
                disposal->places[i].disposal = disposal;
                atomic_init(&disposal->places[i].fd, -1);
        }
        *ret = disposal;
        return 0;
}

bool disposal_is_empty(const struct disposal *disposal) {
        return atomic_load(&disposal->n_taken) == 0;
}

struct disposal *disposal_free(struct disposal *disposal) {
        if (disposal && disposal_is_empty(disposal))
                free(disposal);
        return NULL;
}

void disposal_close(struct disposal *disposal, int fd) {
        struct place *place = disposal->places;

        if (fd < 0 || descriptor_close_socket(fd) >= 0)
                return;

        while (atomic_load(&place->fd) >= 0) {
                place++;
                assert(place < disposal->places + PLACES_MAX);
        }
        atomic_store(&place->fd, fd);
        atomic_fetch_add(&disposal->n_taken, 1);
        if (start(place) < 0)
                disposal->n_waiting++;
}

/* Try again to start the threads that could not be started. Returns whether all run. */
static bool start_waiting(struct disposal *disposal) {
        for (struct place *place = disposal->places; disposal->n_waiting > 0; place++) {
                /* A thread of ours is done with a place before it is free, so what is taken without one waits. */
                if (place->has_thread || atomic_load(&place->fd) < 0)
                        continue;
                if (start(place) < 0)
                        return false;
                disposal->n_waiting--;
        }
        return true;
}

bool disposal_is_full(struct disposal *disposal) {
        return atomic_load(&disposal->n_taken) >= DISPOSAL_MAX ||
                (disposal->n_waiting > 0 && !start_waiting(disposal));
}
