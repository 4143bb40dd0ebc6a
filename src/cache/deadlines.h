/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cache: finds the entry that expires first, at a cost that does not grow with the entries */
#pragma once

#include <stdint.h>
#include <sys/queue.h>

#include "cache/siphash.h"
#include "cache/table.h"

/* Entries with the same time to live expire in the order in which they came, so a queue for each time to live is always
 * sorted. A heap of these queues, one for each different time to live (often just one), has the first entry of all on top.
 * Adding and removing touch only neighbours, however many entries there are. */

struct deadline_queue;

/* Embedded in an entry that has a deadline. */
struct deadline {
        TAILQ_ENTRY(deadline) siblings;
        struct deadline_queue *queue; /* NULL while it is in none */
        uint64_t at_us;
};

struct deadlines {
        struct deadline_queue **heap; /* the queues that are not empty, the first deadline on top */
        size_t n_heap;
        size_t heap_size;
        struct table queues; /* by time to live */
        struct deadline_queue *recent;
        const struct siphash_key *key;
};

/* Initialise. KEY must stay where it is. Returns -ENOMEM; then, too, there may be something to release. */
int deadlines_init(struct deadlines *deadlines, const struct siphash_key *key);

/* Release the memory of an empty set. */
void deadlines_deinit(struct deadlines *deadlines);

/* Add an entry that expires at AT µs, TTL µs after it came, on a clock that never goes back. If the entry is in already, it
 * gets the new deadline. Returns -ENOMEM; then nothing has changed. */
int deadlines_set(struct deadlines *deadlines, struct deadline *deadline, uint64_t ttl_us, uint64_t at_us);

/* Remove an entry, if it is in a queue. */
void deadlines_remove(struct deadlines *deadlines, struct deadline *deadline);

/* Return the entry that expires first, or NULL. */
struct deadline *deadlines_first(const struct deadlines *deadlines);

/* Return the time to live of an entry in a queue, in µs. */
uint64_t deadline_ttl(const struct deadline *deadline);

/* An entry will soon be removed or get a new deadline: load its neighbours, which may not have been touched for long, into
 * the processor's cache. */
static inline void deadline_prefetch(const struct deadline *deadline) {
        __builtin_prefetch(TAILQ_NEXT(deadline, siblings), 1);
        __builtin_prefetch(deadline->siblings.tqe_prev, 1);
}
