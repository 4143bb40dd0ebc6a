/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/deadlines.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* The key of a queue. It is hashed as bytes, so it must have no padding. */
struct queue_key {
        struct deadline_set *set;
        uint64_t ttl_us;
};

_Static_assert(sizeof(struct queue_key) == sizeof(void *) + sizeof(uint64_t), "no padding");

struct deadline_queue {
        struct table_entry by_key;
        struct queue_key key;
        struct heap_item by_first; /* in the heap of its set */
        TAILQ_HEAD(deadline_entries, deadline) entries;
};

/* The key of an empty queue or set, which comes after all others. */
#define KEY_NONE UINT64_MAX

static uint64_t key_of(const struct deadline *deadline) {
        return deadline ? MIN(deadline->at_us, KEY_NONE - 1) : KEY_NONE;
}

static struct deadline_queue *queue_of(struct heap_item *item) {
        return item ? CONTAINER_OF(item, struct deadline_queue, by_first) : NULL;
}

static struct deadline_set *set_of(struct heap_item *item) {
        return item ? CONTAINER_OF(item, struct deadline_set, by_first) : NULL;
}

static void queue_free(struct deadline_queue *queue) {
        struct deadline_set *set = queue->key.set;

        table_remove(&set->all->queues, &queue->by_key);
        heap_remove(&set->queues, &queue->by_first);
        free(queue);
}

static bool queue_matches(const struct table_entry *entry, const void *key) {
        const struct deadline_queue *queue = CONTAINER_OF(entry, struct deadline_queue, by_key);
        const struct queue_key *k = key;

        return queue->key.set == k->set && queue->key.ttl_us == k->ttl_us;
}

/* Find or make the queue for a time to live. */
static int queue_get(struct deadline_set *set, uint64_t ttl_us, struct deadline_queue **ret) {
        const struct queue_key key = { set, ttl_us };
        struct deadline_queue *queue, *recent = set->recent;
        struct table_entry *entry;
        uint64_t hash;
        int r;

        if (recent && recent->key.ttl_us == ttl_us) {
                *ret = recent;
                return 0;
        }

        hash = siphash13(set->all->key, (struct slice){ (const char *) &key, sizeof(key) });
        entry = table_find(&set->all->queues, hash, queue_matches, &key);
        if (entry) {
                queue = CONTAINER_OF(entry, struct deadline_queue, by_key);
        } else {
                r = heap_reserve(&set->queues, set->queues.n + 1);
                if (r < 0)
                        return r;

                queue = malloc(sizeof(*queue));
                if (!queue)
                        return -ENOMEM;
                queue->key = key;
                TAILQ_INIT(&queue->entries);
                table_add(&set->all->queues, &queue->by_key, hash);
                heap_add(&set->queues, &queue->by_first, KEY_NONE);
        }

        set->recent = queue;
        if (recent && TAILQ_EMPTY(&recent->entries))
                queue_free(recent);

        *ret = queue;
        return 0;
}

int deadlines_init(struct deadlines *deadlines, const struct siphash_key *key) {
        *deadlines = (struct deadlines){ .key = key };
        return table_init(&deadlines->queues);
}

void deadlines_deinit(struct deadlines *deadlines) {
        heap_deinit(&deadlines->sets);
        table_deinit(&deadlines->queues);
}

int deadline_set_init(struct deadline_set *set, struct deadlines *deadlines) {
        int r;

        r = heap_reserve(&deadlines->sets, deadlines->sets.n + 1);
        if (r < 0)
                return r;

        *set = (struct deadline_set){ .all = deadlines };
        heap_add(&deadlines->sets, &set->by_first, KEY_NONE);
        return 0;
}

void deadline_set_deinit(struct deadline_set *set) {
        if (set->recent)
                queue_free(set->recent);
        heap_deinit(&set->queues);
        heap_remove(&set->all->sets, &set->by_first);
}

/* The first entry of a queue has changed, or the queue has become empty. */
static void note_first(struct deadline_queue *queue) {
        struct deadline_set *set = queue->key.set;
        uint64_t key;

        heap_set(&set->queues, &queue->by_first, key_of(TAILQ_FIRST(&queue->entries)));
        key = heap_first(&set->queues)->key;
        if (key != set->by_first.key)
                heap_set(&set->all->sets, &set->by_first, key);
}

int deadlines_add(struct deadline_set *set, struct deadline *deadline, uint64_t ttl_us, uint64_t at_us) {
        struct deadline_queue *queue;
        struct deadline *before;
        int r;

        r = queue_get(set, ttl_us, &queue);
        if (r < 0)
                return r;

        deadlines_remove(deadline);

        deadline->queue = queue;
        deadline->at_us = at_us;
        /* Only entries that were restored from a former process may come out of order, a few at a time. */
        TAILQ_FOREACH_REVERSE (before, &queue->entries, deadline_entries, siblings)
                if (before->at_us <= at_us)
                        break;
        if (before) {
                TAILQ_INSERT_AFTER(&queue->entries, before, deadline, siblings);
                return 0;
        }

        TAILQ_INSERT_HEAD(&queue->entries, deadline, siblings);
        note_first(queue);
        return 0;
}

void deadlines_remove(struct deadline *deadline) {
        struct deadline_queue *queue = deadline->queue;
        bool was_first;

        if (!queue)
                return;

        was_first = TAILQ_FIRST(&queue->entries) == deadline;
        TAILQ_REMOVE(&queue->entries, deadline, siblings);
        deadline->queue = NULL;
        if (!was_first)
                return;

        note_first(queue);
        /* The queue used last is kept for the next entry, which likely has the same time to live. */
        if (TAILQ_EMPTY(&queue->entries) && queue != queue->key.set->recent)
                queue_free(queue);
}

struct deadline *deadline_set_first(const struct deadline_set *set) {
        const struct deadline_queue *queue = queue_of(heap_first(&set->queues));

        return queue ? TAILQ_FIRST(&queue->entries) : NULL;
}

struct deadline *deadlines_first(const struct deadlines *deadlines) {
        const struct deadline_set *set = set_of(heap_first(&deadlines->sets));

        return set ? deadline_set_first(set) : NULL;
}

uint64_t deadline_ttl(const struct deadline *deadline) {
        return deadline->queue->key.ttl_us;
}

struct deadline_set *deadline_set_of(const struct deadline *deadline) {
        return deadline->queue->key.set;
}
