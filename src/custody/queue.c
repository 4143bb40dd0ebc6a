/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/queue.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define ENTRIES_AT_FIRST 16

void queues_init(struct queues *queues) {
        TAILQ_INIT(&queues->by_turn);
}

static struct queue_list *bucket_of(struct queues *queues, uid_t uid) {
        return &queues->buckets[(uid * UINT32_C(2654435761)) >> 26];
}

_Static_assert(QUEUE_BUCKETS == 1 << (32 - 26), "as many buckets as bucket_of() knows");

struct queue *queues_find(struct queues *queues, uid_t uid, enum disposal_origin origin) {
        struct queue *queue = queues->last;

        if (queue && queue->uid == uid && queue->origin == origin)
                return queue;

        LIST_FOREACH(queue, bucket_of(queues, uid), by_uid)
        if (queue->uid == uid && queue->origin == origin)
                return queues->last = queue;
        return NULL;
}

static struct queue *queue_new(struct queues *queues, uid_t uid, enum disposal_origin origin) {
        struct queue *queue;

        queue = calloc(1, sizeof(*queue));
        if (!queue)
                return NULL;

        queue->uid = uid;
        queue->origin = origin;
        LIST_INSERT_HEAD(bucket_of(queues, uid), queue, by_uid);
        TAILQ_INSERT_TAIL(&queues->by_turn, queue, by_turn);
        queues->n_users += origin == DISPOSAL_PASSED;
        return queues->last = queue;
}

static void queue_free(struct queues *queues, struct queue *queue) {
        for (size_t i = 0; i < queue->n; i++)
                connection_free(queue_at(queue, i)->connection);
        if (queues->last == queue)
                queues->last = NULL;
        LIST_REMOVE(queue, by_uid);
        if (queue->n_with_worker == 0)
                TAILQ_REMOVE(&queues->by_turn, queue, by_turn);
        queues->n_users -= queue->origin == DISPOSAL_PASSED;
        free(queue->entries);
        free(queue);
}

void queues_release(struct queues *queues) {
        struct queue *queue;

        for (unsigned i = 0; i < QUEUE_BUCKETS; i++)
                while ((queue = LIST_FIRST(&queues->buckets[i])))
                        queue_free(queues, queue);
}

static bool make_room(struct queue *queue) {
        size_t size = queue->size > 0 ? 2 * queue->size : ENTRIES_AT_FIRST;
        struct queue_entry *entries;

        if (queue->first > queue->size / 2) {
                memmove(queue->entries, queue_at(queue, 0), queue->n * sizeof(*queue->entries));
                queue->first = 0;
                return true;
        }

        entries = reallocarray(queue->entries, size, sizeof(*entries));
        if (!entries)
                return false;

        queue->entries = entries;
        queue->size = size;
        return true;
}

struct queue *queues_add(
        struct queues *queues, uid_t uid, enum disposal_origin origin, const struct queue_entry *entry) {
        struct queue *queue = queues_find(queues, uid, origin);

        if (!queue)
                queue = queue_new(queues, uid, origin);
        if (!queue)
                return NULL;
        if (queue->first + queue->n == queue->size && !make_room(queue)) {
                if (queue->n == 0)
                        queue_free(queues, queue);
                return NULL;
        }

        *queue_at(queue, queue->n++) = *entry;
        return queue;
}

void queues_lend(struct queues *queues, struct queue *queue, size_t n) {
        TAILQ_REMOVE(&queues->by_turn, queue, by_turn);
        queue->n_with_worker = n;
}

void queues_take_back(struct queues *queues, struct queue *queue, size_t n) {
        queue->n_with_worker = 0;
        queue->n -= n;
        queue->first = queue->n > 0 ? queue->first + n : 0;
        TAILQ_INSERT_TAIL(&queues->by_turn, queue, by_turn);
        if (queue->n == 0)
                queue_free(queues, queue);
}
