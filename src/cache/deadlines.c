/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/deadlines.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct deadline_queue {
        struct table_entry by_ttl;
        uint64_t ttl_us;
        size_t position; /* in the heap, while not empty */
        TAILQ_HEAD(deadline_entries, deadline) entries;
};

static uint64_t first_end(const struct deadline_queue *queue) {
        return TAILQ_FIRST(&queue->entries)->at_us;
}

static void heap_put(struct deadlines *deadlines, size_t position, struct deadline_queue *queue) {
        deadlines->heap[position] = queue;
        queue->position = position;
}

static void heap_up(struct deadlines *deadlines, struct deadline_queue *queue) {
        size_t position = queue->position;

        while (position > 0) {
                size_t parent = (position - 1) / 2;

                if (first_end(deadlines->heap[parent]) <= first_end(queue))
                        break;
                heap_put(deadlines, position, deadlines->heap[parent]);
                position = parent;
        }
        heap_put(deadlines, position, queue);
}

static void heap_down(struct deadlines *deadlines, struct deadline_queue *queue) {
        size_t position = queue->position;

        for (;;) {
                size_t child = 2 * position + 1;

                if (child >= deadlines->n_heap)
                        break;
                if (child + 1 < deadlines->n_heap &&
                        first_end(deadlines->heap[child + 1]) < first_end(deadlines->heap[child]))
                        child++;
                if (first_end(queue) <= first_end(deadlines->heap[child]))
                        break;
                heap_put(deadlines, position, deadlines->heap[child]);
                position = child;
        }
        heap_put(deadlines, position, queue);
}

static void queue_free(struct deadlines *deadlines, struct deadline_queue *queue) {
        table_remove(&deadlines->queues, &queue->by_ttl);
        free(queue);
}

/* A queue has become empty. The one used last is kept for the next entry, which likely has the same time to live. */
static void queue_idle(struct deadlines *deadlines, struct deadline_queue *queue) {
        struct deadline_queue *last = deadlines->heap[--deadlines->n_heap];

        if (last != queue) {
                heap_put(deadlines, queue->position, last);
                heap_up(deadlines, last);
                heap_down(deadlines, last);
        }

        if (queue != deadlines->recent)
                queue_free(deadlines, queue);
}

static bool queue_matches(const struct table_entry *entry, const void *key) {
        return CONTAINER_OF(entry, struct deadline_queue, by_ttl)->ttl_us == *(const uint64_t *) key;
}

/* The queue for a time to live, with a place in the heap reserved for it. */
static int queue_get(struct deadlines *deadlines, uint64_t ttl_us, struct deadline_queue **ret) {
        struct deadline_queue *queue, *recent = deadlines->recent;
        struct table_entry *entry;
        uint64_t hash;

        if (recent && recent->ttl_us == ttl_us) {
                *ret = recent;
                return 0;
        }

        hash = siphash13(deadlines->key, (struct slice){ (const char *) &ttl_us, sizeof(ttl_us) });
        entry = table_find(&deadlines->queues, hash, queue_matches, &ttl_us);
        if (entry) {
                queue = CONTAINER_OF(entry, struct deadline_queue, by_ttl);
        } else {
                if (deadlines->queues.n_entries >= deadlines->heap_size) {
                        size_t size = deadlines->heap_size > 0 ? deadlines->heap_size * 2 : 16;
                        struct deadline_queue **heap;

                        heap = reallocarray(deadlines->heap, size, sizeof(*heap));
                        if (!heap)
                                return -ENOMEM;
                        deadlines->heap = heap;
                        deadlines->heap_size = size;
                }

                queue = malloc(sizeof(*queue));
                if (!queue)
                        return -ENOMEM;
                queue->ttl_us = ttl_us;
                TAILQ_INIT(&queue->entries);
                table_add(&deadlines->queues, &queue->by_ttl, hash);
        }

        deadlines->recent = queue;
        if (recent && TAILQ_EMPTY(&recent->entries))
                queue_free(deadlines, recent);

        *ret = queue;
        return 0;
}

int deadlines_init(struct deadlines *deadlines, const struct siphash_key *key) {
        *deadlines = (struct deadlines){ .key = key };
        return table_init(&deadlines->queues);
}

void deadlines_deinit(struct deadlines *deadlines) {
        assert(deadlines->n_heap == 0);

        if (deadlines->recent)
                queue_free(deadlines, deadlines->recent);
        table_deinit(&deadlines->queues);
        free(deadlines->heap);
}

int deadlines_set(struct deadlines *deadlines, struct deadline *deadline, uint64_t ttl_us, uint64_t at_us) {
        struct deadline_queue *queue;
        struct deadline *before;
        int r;

        r = queue_get(deadlines, ttl_us, &queue);
        if (r < 0)
                return r;

        deadlines_remove(deadlines, deadline);

        if (TAILQ_EMPTY(&queue->entries))
                queue->position = deadlines->n_heap++;

        deadline->queue = queue;
        deadline->at_us = at_us;
        /* Only entries that were taken over from a former process may come out of order, a few at a time. */
        TAILQ_FOREACH_REVERSE (before, &queue->entries, deadline_entries, siblings)
                if (before->at_us <= at_us)
                        break;
        if (before)
                TAILQ_INSERT_AFTER(&queue->entries, before, deadline, siblings);
        else
                TAILQ_INSERT_HEAD(&queue->entries, deadline, siblings);

        if (!before)
                heap_up(deadlines, queue);
        return 0;
}

void deadlines_remove(struct deadlines *deadlines, struct deadline *deadline) {
        struct deadline_queue *queue = deadline->queue;
        bool was_first;

        if (!queue)
                return;

        was_first = TAILQ_FIRST(&queue->entries) == deadline;
        TAILQ_REMOVE(&queue->entries, deadline, siblings);
        deadline->queue = NULL;

        if (TAILQ_EMPTY(&queue->entries))
                queue_idle(deadlines, queue);
        else if (was_first)
                heap_down(deadlines, queue);
}

struct deadline *deadlines_first(const struct deadlines *deadlines) {
        return deadlines->n_heap > 0 ? TAILQ_FIRST(&deadlines->heap[0]->entries) : NULL;
}

uint64_t deadline_ttl(const struct deadline *deadline) {
        return deadline->queue->ttl_us;
}
