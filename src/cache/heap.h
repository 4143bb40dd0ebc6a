/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cache: a heap: which of many is first, at a cost that hardly grows with them */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Embedded in what is in a heap; it must not move. */
struct heap_item {
        uint64_t key;
        size_t at;
};

/* All zero is an empty heap. */
struct heap {
        struct heap_item **items; /* the one with the least key first */
        size_t n;
        size_t size;
};

/* Make room for N items in all. Returns -ENOMEM. */
int heap_reserve(struct heap *heap, size_t n);

/* Free the memory of an empty heap. */
void heap_deinit(struct heap *heap);

/* Add an item; there must be room for it. */
void heap_add(struct heap *heap, struct heap_item *item, uint64_t key);
void heap_remove(struct heap *heap, struct heap_item *item);

/* Move an item to its place. */
void heap_sift(struct heap *heap, struct heap_item *item);

/* Give an item another key. */
static inline void heap_set(struct heap *heap, struct heap_item *item, uint64_t key) {
        item->key = key;
        if (heap->n > 1)
                heap_sift(heap, item);
}

/* Return the item with the least key, NULL if there is none. */
static inline struct heap_item *heap_first(const struct heap *heap) {
        return heap->n > 0 ? heap->items[0] : NULL;
}
