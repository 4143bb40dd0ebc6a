/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon: a thread for calls that may wait, such as reading a file; the loop goes on, and is told when one is done */
#pragma once

#include <sys/queue.h>

struct loop;
struct errands;

/* An errand, embedded in what it is about. It is out of its owner's hands from errand_begin() until done() is called. */
struct errand {
        STAILQ_ENTRY(errand) next;
        void (*work)(struct errand *errand); /* in the thread, one at a time: may wait */
        void (*done)(struct errand *errand); /* in the loop: must not wait */
};

/* Make a set of errands. The thread starts with the first one. LOOP must outlive it. Returns negative errno. */
int errands_new(struct errands **ret, struct loop *loop);

/* End the thread, and free, without waiting. done() is called for each errand that the thread is not at, even if it was never
 * begun. If the thread is at one, both are left to the end of the process, and so must be all that this errand uses; then this
 * returns what it was given, otherwise NULL. */
struct errands *errands_free(struct errands *errands);

/* Have an errand done after those before it. Returns negative errno if there is no thread; then it is still its owner's. */
int errand_begin(struct errands *errands, struct errand *errand);
