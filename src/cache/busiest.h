/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cache: the labels that are looked up most, in bounded memory whatever their number */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/slice.h"
#include "cache/heap.h"
#include "cache/past.h"
#include "cache/records.h"
#include "cache/table.h"

/* Space-saving (Metwally, Agrawal and El Abbadi, 2005): there are so many rows. A label that has none takes over the one with the
 * least weight, and begins with that weight, for it may have been looked up so many times before; this is the error of its row. So
 * a label that is looked up more often than one lookup in the number of rows has one.
 *
 * Where no label is busier than others, rows would change hands with each lookup. So, of lookups of labels without a row, only one
 * in as many as the least weight is looked at, or one in 64, and weighs as much: that doubles the error at most. */

#define BUSIEST_SAMPLING_MAX 64

/* Bytes of a label that are kept to show it; labels are told apart by their keys. */
#define BUSIEST_LABEL_MAX 224

struct busiest_row {
        struct table_entry by_key;
        struct heap_item by_weight; /* its key is the weight, or a weight that it once had */
        uint64_t weight;
        uint64_t hits;      /* since it is there; of an endpoint, also those by a destination */
        struct scope scope; /* of the last lookup: all epochs of a user have one row */
        /* What is above is in one line of the processor's cache, and is all that a hit needs. */
        uint64_t misses[_REASON_MAX];
        uint64_t dead;  /* an endpoint's connections whose peer hung up or spoke */
        uint64_t error; /* the part of the weight that may be of others */
        uint64_t since_us;
        uint32_t number;
        uint32_t label_size; /* of the whole label */
        char label[BUSIEST_LABEL_MAX];
};

/* All zero but for the table is one that keeps nothing. */
struct busiest {
        struct table by_key;
        struct heap by_weight;
        struct busiest_row **rows; /* by number */
        size_t n_rows;
        size_t rows_max;
        uint64_t random;
};

/* Initialise; it keeps nothing so far. Returns -ENOMEM; then, too, there may be something to release. */
int busiest_init(struct busiest *busiest);
void busiest_deinit(struct busiest *busiest);

/* Change the number of rows. If there are fewer than before, all are forgotten. */
void busiest_set_limit(struct busiest *busiest, size_t limit);

/* Return the memory that it takes, and a row of it, in bytes. */
uint64_t busiest_bytes(const struct busiest *busiest);
uint64_t busiest_row_bytes(void);

/* What a caller remembers of the row of a label, so that it need not be looked up each time: 0 at first, then its number plus 1,
 * which may be that of another label by now, or: */
#define BUSIEST_NONE UINT32_MAX

/* Return the row of the label with this key, NULL if it has none. */
struct busiest_row *busiest_find(const struct busiest *busiest, uint64_t key, uint32_t *hint);

/* The label with this key, of SCOPE, is looked up at NOW µs. Returns its row, NULL if it has and gets none. */
struct busiest_row *busiest_look(struct busiest *busiest, uint64_t key, struct scope scope,
        struct slice label, uint64_t now_us, uint32_t *hint);
