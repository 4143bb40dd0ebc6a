/* cache: which of many entries is nearest to its end, at a flat cost */
#pragma once

#include <stdint.h>
#include <sys/queue.h>

#include "cache/siphash.h"
#include "cache/table.h"

/* Entries with the same time to live end in the order in which they came, so a queue for each time to live keeps itself
 * sorted; a heap of these queues, of which there are as many as different times to live (often one), yields the
 * first of all. Adding and removing touch only neighbours, however many entries there are. */

struct deadline_queue;

/* Embedded in what has a deadline. */
struct deadline {
        TAILQ_ENTRY(deadline) siblings;
        struct deadline_queue *queue; /* NULL while not in any */
        uint64_t at_us;
};

struct deadlines {
        struct deadline_queue **heap; /* the queues that are not empty, first end on top */
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

/* Add an entry that ends at AT µs, on a clock that never goes back, TTL µs after it came; or, if it is in already,
 * give it this new end. Returns -ENOMEM; then the entry is as it was. */
int deadlines_set(struct deadlines *deadlines, struct deadline *deadline, uint64_t ttl_us, uint64_t at_us);

/* Remove an entry, if it is in. */
void deadlines_remove(struct deadlines *deadlines, struct deadline *deadline);

/* The entry nearest to its end, or NULL. */
struct deadline *deadlines_first(const struct deadlines *deadlines);

/* The time to live an entry that is in was added with, in µs. */
uint64_t deadline_ttl(const struct deadline *deadline);

/* An entry will soon be removed or given a new end: have its neighbours, which nobody may have touched for long, in the
 * processor's cache by then. */
static inline void deadline_prefetch(const struct deadline *deadline) {
        __builtin_prefetch(TAILQ_NEXT(deadline, siblings), 1);
        __builtin_prefetch(deadline->siblings.tqe_prev, 1);
}
