/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cache: a hash table that grows one bucket at a time, so that no insertion is much slower than the others */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Linear hashing (Litwin, 1980). A table that doubles in one step, as uthash and most others do, stops for tens of
 * milliseconds at a million entries. Here an insertion splits at most one bucket. */

/* Embedded in an entry, which must not move. */
struct table_entry {
        struct table_entry *next;
        uint64_t hash;
};

struct table {
        struct table_entry ***segments; /* each an array of buckets */
        size_t n_segments;
        size_t segments_size; /* slots in `segments` */
        uint64_t n_buckets;
        uint64_t n_entries;
};

typedef bool (*table_match_fn)(const struct table_entry *entry, const void *key);

/* Initialise an empty table. Returns -ENOMEM; then, too, there may be something to release. */
int table_init(struct table *table);

/* Release the table's own memory. It must be empty. */
void table_deinit(struct table *table);

/* Return the entry with this hash that MATCH accepts for KEY, or NULL. */
struct table_entry *table_find(
        const struct table *table, uint64_t hash, table_match_fn match, const void *key);

/* Add an entry and set its hash. Cannot fail: without memory to grow, chains get longer. */
void table_add(struct table *table, struct table_entry *entry, uint64_t hash);

/* Remove an entry that is in the table. */
void table_remove(struct table *table, struct table_entry *entry);

/* An entry will soon be removed: load its bucket, which may not have been touched for long, into the processor's cache. */
void table_prefetch(const struct table *table, const struct table_entry *entry);

/* Return the first entry of a bucket, to walk the table in parts: buckets have the numbers 0 to n_buckets - 1, and when the
 * table grows, an entry moves only to a bucket with a higher number. */
struct table_entry *table_bucket(const struct table *table, uint64_t bucket);
