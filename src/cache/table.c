/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* Buckets come in segments, so that growing never copies them. */
#define SEGMENT_SIZE UINT64_C(512)

/* There are the 2^k buckets of the current round, and those that were split off from its first buckets so far. */
static uint64_t bucket_of(const struct table *table, uint64_t hash) {
        uint64_t round = UINT64_C(1) << (63 - __builtin_clzll(table->n_buckets)), bucket;

        bucket = hash & (2 * round - 1);
        return bucket < table->n_buckets ? bucket : hash & (round - 1);
}

static struct table_entry **bucket_at(const struct table *table, uint64_t bucket) {
        return &table->segments[bucket / SEGMENT_SIZE][bucket % SEGMENT_SIZE];
}

static int add_segment(struct table *table) {
        struct table_entry **segment;

        if (table->n_segments == table->segments_size) {
                size_t size = table->segments_size > 0 ? table->segments_size * 2 : 8;
                struct table_entry ***segments;

                segments = reallocarray(table->segments, size, sizeof(*segments));
                if (!segments)
                        return -ENOMEM;
                table->segments = segments;
                table->segments_size = size;
        }

        segment = calloc(SEGMENT_SIZE, sizeof(*segment));
        if (!segment)
                return -ENOMEM;

        table->segments[table->n_segments++] = segment;
        return 0;
}

int table_init(struct table *table) {
        *table = (struct table){ .n_buckets = SEGMENT_SIZE };
        return add_segment(table);
}

void table_deinit(struct table *table) {
        assert(table->n_entries == 0);

        for (size_t i = 0; i < table->n_segments; i++)
                free(table->segments[i]);
        free(table->segments);
        *table = (struct table){};
}

struct table_entry *table_find(
        const struct table *table, uint64_t hash, table_match_fn match, const void *key) {
        for (struct table_entry *e = *bucket_at(table, bucket_of(table, hash)); e; e = e->next)
                if (e->hash == hash && match(e, key))
                        return e;

        return NULL;
}

/* Add one bucket, and move the entries that belong there from the bucket that it splits. */
static void split(struct table *table) {
        uint64_t round = UINT64_C(1) << (63 - __builtin_clzll(table->n_buckets));
        uint64_t from = table->n_buckets - round;
        struct table_entry **link, **to;

        if (table->n_buckets == table->n_segments * SEGMENT_SIZE && add_segment(table) < 0)
                return;

        to = bucket_at(table, table->n_buckets++);
        link = bucket_at(table, from);
        while (*link) {
                struct table_entry *e = *link;

                if ((e->hash & (2 * round - 1)) == from) {
                        link = &e->next;
                } else {
                        *link = e->next;
                        e->next = *to;
                        *to = e;
                }
        }
}

void table_add(struct table *table, struct table_entry *entry, uint64_t hash) {
        struct table_entry **bucket;

        if (table->n_entries >= table->n_buckets)
                split(table);

        bucket = bucket_at(table, bucket_of(table, hash));
        entry->hash = hash;
        entry->next = *bucket;
        *bucket = entry;
        table->n_entries++;
}

void table_remove(struct table *table, struct table_entry *entry) {
        struct table_entry **link = bucket_at(table, bucket_of(table, entry->hash));

        while (*link != entry)
                link = &(*link)->next;
        *link = entry->next;
        table->n_entries--;

        /* Free the memory of a burst. An empty table has no walk in progress, so the buckets may be numbered anew. */
        if (table->n_entries == 0) {
                while (table->n_segments > 1)
                        free(table->segments[--table->n_segments]);
                table->n_buckets = SEGMENT_SIZE;
        }
}

void table_prefetch(const struct table *table, const struct table_entry *entry) {
        __builtin_prefetch(bucket_at(table, bucket_of(table, entry->hash)), 1);
}

struct table_entry *table_bucket(const struct table *table, uint64_t bucket) {
        return *bucket_at(table, bucket);
}
