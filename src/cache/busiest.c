/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/busiest.h"

#include <string.h>

#include "base/cleanup.h"

static struct busiest_row *row_of(struct table_entry *entry) {
        return entry ? CONTAINER_OF(entry, struct busiest_row, by_key) : NULL;
}

/* Keys are keyed hashes of 64 bits: labels that have the same one do not come by. */
static bool row_matches(_unused_ const struct table_entry *entry, _unused_ const void *key) {
        return true;
}

int busiest_init(struct busiest *busiest) {
        *busiest = (struct busiest){};
        return table_init(&busiest->by_key);
}

static void forget_all(struct busiest *busiest) {
        for (size_t i = 0; i < busiest->n_rows; i++) {
                heap_remove(&busiest->by_weight, &busiest->rows[i]->by_weight);
                table_remove(&busiest->by_key, &busiest->rows[i]->by_key);
                free(busiest->rows[i]);
        }
        free(STEAL(busiest->rows));
        busiest->n_rows = 0;
        heap_deinit(&busiest->by_weight);
}

void busiest_deinit(struct busiest *busiest) {
        forget_all(busiest);
        table_deinit(&busiest->by_key);
}

void busiest_set_limit(struct busiest *busiest, size_t limit) {
        if (limit < busiest->n_rows)
                forget_all(busiest);
        busiest->rows_max = limit;
}

/* With its places in the array and in the heap, and what malloc(3) adds. */
uint64_t busiest_row_bytes(void) {
        return sizeof(struct busiest_row) + 4 * sizeof(void *);
}

uint64_t busiest_bytes(const struct busiest *busiest) {
        return busiest->n_rows * busiest_row_bytes();
}

static struct busiest_row *find(const struct busiest *busiest, uint64_t key, uint32_t *hint) {
        struct busiest_row *row = row_of(table_find(&busiest->by_key, key, row_matches, NULL));

        *hint = row ? row->number + 1 : BUSIEST_NONE;
        return row;
}

struct busiest_row *busiest_find(const struct busiest *busiest, uint64_t key, uint32_t *hint) {
        if (*hint == BUSIEST_NONE)
                return NULL;
        if (*hint > 0 && *hint <= busiest->n_rows && busiest->rows[*hint - 1]->by_key.hash == key)
                return busiest->rows[*hint - 1];
        return find(busiest, key, hint);
}

/* Make a row, or take over that of the least weight. Returns NULL if there is no memory for one. */
static struct busiest_row *get_row(struct busiest *busiest) {
        struct busiest_row *row, **rows;

        if (busiest->n_rows < busiest->rows_max) {
                rows = reallocarray(busiest->rows, busiest->n_rows + 1, sizeof(struct busiest_row *));
                if (!rows)
                        return NULL;
                busiest->rows = rows;

                row = malloc(sizeof(*row));
                if (!row || heap_reserve(&busiest->by_weight, busiest->n_rows + 1) < 0) {
                        free(row);
                        return NULL;
                }
                row->number = (uint32_t) busiest->n_rows;
                row->weight = 0;
                rows[busiest->n_rows++] = row;
                heap_add(&busiest->by_weight, &row->by_weight, 0);
                return row;
        }

        /* A weight grows without its place in the heap: that is seen to when it comes up. */
        for (;;) {
                row = CONTAINER_OF(heap_first(&busiest->by_weight), struct busiest_row, by_weight);
                if (row->by_weight.key == row->weight)
                        break;
                heap_set(&busiest->by_weight, &row->by_weight, row->weight);
        }
        table_remove(&busiest->by_key, &row->by_key);
        return row;
}

/* How many lookups of labels without a row one of them stands for. */
static uint64_t sampling(const struct busiest *busiest) {
        uint64_t least;

        if (busiest->n_rows < busiest->rows_max)
                return 1;
        least = heap_first(&busiest->by_weight)->key;
        return MIN(MAX(least, UINT64_C(1)), (uint64_t) BUSIEST_SAMPLING_MAX);
}

/* One in N, and not by turns: then labels that come by turns would never be seen (Knuth's MMIX generator). */
static bool is_sampled(struct busiest *busiest, uint64_t n) {
        busiest->random = busiest->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (busiest->random >> 32) % n == 0;
}

struct busiest_row *busiest_look(struct busiest *busiest, uint64_t key, struct scope scope,
        struct slice label, uint64_t now_us, uint32_t *hint) {
        struct busiest_row *row = busiest_find(busiest, key, hint);
        uint64_t weight_before, n;

        if (row) {
                row->weight++;
                row->scope = scope;
                return row;
        }
        if (busiest->rows_max == 0)
                return NULL;
        n = sampling(busiest);
        if (n > 1 && !is_sampled(busiest, n))
                return NULL;

        /* The label of another epoch may have one. */
        row = find(busiest, key, hint);
        if (row) {
                row->weight += n;
                return row;
        }
        row = get_row(busiest);
        if (!row)
                return NULL;

        weight_before = row->weight + n - 1;
        *row = (struct busiest_row){
                .by_weight = row->by_weight,
                .number = row->number,
                .scope = scope,
                .weight = weight_before + 1,
                .error = weight_before,
                .since_us = now_us,
                .label_size = (uint32_t) label.size,
        };
        if (label.size > 0)
                memcpy(row->label, label.data, MIN(label.size, sizeof(row->label)));
        table_add(&busiest->by_key, &row->by_key, key);
        *hint = row->number + 1;
        return row;
}
