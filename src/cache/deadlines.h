/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cache: finds the entry that expires first, of a user or of all, at a cost that does not grow with the entries */
#pragma once

#include <stdint.h>
#include <sys/queue.h>

#include "base/cleanup.h"
#include "base/siphash.h"
#include "cache/heap.h"
#include "cache/table.h"

/* Entries with the same time to live expire in the order in which they came, so a queue for each time to live is always
 * sorted. A set has a heap of its queues, one for each different time to live (often just one), with the first entry of
 * the set on top; and a heap of all sets has the first entry of all on top. Adding and removing touch only neighbours,
 * however many entries there are. */

struct deadline_queue;

/* Embedded in an entry that has a deadline. */
struct deadline {
        TAILQ_ENTRY(deadline) siblings;
        struct deadline_queue *queue; /* NULL while it is in none */
        uint64_t at_us;
};

/* All sets. */
struct deadlines {
        struct heap sets;    /* those that are empty last */
        struct table queues; /* by set and time to live */
        const struct siphash_key *key;
};

/* The entries of one user. */
struct deadline_set {
        struct deadlines *all;
        struct heap_item by_first; /* in `sets` */
        struct heap queues;        /* the one that is empty, if there is one, last */
        struct deadline_queue *recent;
};

/* Initialise. KEY must stay where it is. Returns -ENOMEM; then, too, there may be something to release. */
int deadlines_init(struct deadlines *deadlines, const struct siphash_key *key);

/* Release the memory when there are no sets any more. */
void deadlines_deinit(struct deadlines *deadlines);

/* Initialise an empty set, which must not move. Returns -ENOMEM; then nothing has changed. */
int deadline_set_init(struct deadline_set *set, struct deadlines *deadlines);

/* Release the memory of an empty set. */
void deadline_set_deinit(struct deadline_set *set);

/* Add an entry that expires at AT µs, TTL µs after it came, on a clock that never goes back. If the entry is in a set already,
 * it leaves that one. Returns -ENOMEM; then nothing has changed. */
int deadlines_add(struct deadline_set *set, struct deadline *deadline, uint64_t ttl_us, uint64_t at_us);

/* Remove an entry, if it is in a queue. */
void deadlines_remove(struct deadline *deadline);

/* Return the entry of a set that expires first, or that of all sets, or NULL. */
struct deadline *deadline_set_first(const struct deadline_set *set);
struct deadline *deadlines_first(const struct deadlines *deadlines);

/* Return the time to live of an entry in a queue, in µs, and its set. */
uint64_t deadline_ttl(const struct deadline *deadline);
struct deadline_set *deadline_set_of(const struct deadline *deadline);

/* An entry will soon be removed or get a new deadline: load its neighbours, which may not have been touched for long, into
 * the processor's cache. */
static inline void deadline_prefetch(const struct deadline *deadline) {
        __builtin_prefetch(TAILQ_NEXT(deadline, siblings), 1);
        __builtin_prefetch(deadline->siblings.tqe_prev, 1);
}
