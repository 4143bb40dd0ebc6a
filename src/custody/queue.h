/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* custody: queues of descriptors to close, one for each user and origin */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "cache/cache.h"

/* Where a descriptor is from. What agents have passed may take for ever; the agents' own sockets never do, and do not wait
 * behind. */
enum disposal_origin {
        DISPOSAL_PASSED,
        DISPOSAL_SOCKET,
};

struct queue_entry {
        int fd;
        uint8_t kind;                  /* enum task_kind */
        struct connection *connection; /* with a farewell, or NULL */
};

/* The descriptors to close for a user. A queue lives while it has some. */
struct queue {
        LIST_ENTRY(queue) by_uid;
        TAILQ_ENTRY(queue) by_turn; /* while no worker has a batch of it */
        uid_t uid;
        enum disposal_origin origin;
        size_t n_with_worker;  /* of the entries the first ones */
        size_t first, n, size; /* where entries begin, how many there are, room for how many there is */
        struct queue_entry *entries; /* first come first */
};

LIST_HEAD(queue_list, queue);
TAILQ_HEAD(queue_turns, queue);

#define QUEUE_BUCKETS 64

struct queues {
        struct queue_list buckets[QUEUE_BUCKETS];
        struct queue_turns by_turn; /* the queues that can give a batch */
        struct queue *last;         /* the last result: most likely the next one, too */
        size_t n_users;             /* users with a queue of passed descriptors */
};

/* All zero at first, but for this. */
void queues_init(struct queues *queues);

/* Free the queues, with the connections that are left in them. */
void queues_release(struct queues *queues);

/* Find a queue; NULL if there is none. */
struct queue *queues_find(struct queues *queues, uid_t uid, enum disposal_origin origin);

/* Add an entry to a queue, and make the queue if there is none. Returns the queue, or NULL without memory. */
struct queue *queues_add(
        struct queues *queues, uid_t uid, enum disposal_origin origin, const struct queue_entry *entry);

/* Get the entry at a place, the oldest at 0. */
static inline struct queue_entry *queue_at(const struct queue *queue, size_t i) {
        return &queue->entries[queue->first + i];
}

/* A worker has the first N entries of a queue. */
void queues_lend(struct queues *queues, struct queue *queue, size_t n);

/* The worker has come to an end, and has done the first N. Frees the queue if it is empty then. */
void queues_take_back(struct queues *queues, struct queue *queue, size_t n);
