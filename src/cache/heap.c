/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/heap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define SIZE_FIRST 16

int heap_reserve(struct heap *heap, size_t n) {
        size_t size = heap->size > 0 ? heap->size : SIZE_FIRST;
        struct heap_item **items;

        if (n <= heap->size)
                return 0;

        while (size < n)
                size *= 2;
        items = reallocarray(heap->items, size, sizeof(*items));
        if (!items)
                return -ENOMEM;

        heap->items = items;
        heap->size = size;
        return 0;
}

void heap_deinit(struct heap *heap) {
        assert(heap->n == 0);

        free(heap->items);
        *heap = (struct heap){};
}

static void put(struct heap *heap, size_t at, struct heap_item *item) {
        heap->items[at] = item;
        item->at = at;
}

void heap_sift(struct heap *heap, struct heap_item *item) {
        size_t at = item->at;

        while (at > 0 && heap->items[(at - 1) / 2]->key > item->key) {
                put(heap, at, heap->items[(at - 1) / 2]);
                at = (at - 1) / 2;
        }

        for (;;) {
                size_t child = 2 * at + 1;

                if (child + 1 < heap->n && heap->items[child + 1]->key < heap->items[child]->key)
                        child++;
                if (child >= heap->n || item->key <= heap->items[child]->key)
                        break;
                put(heap, at, heap->items[child]);
                at = child;
        }

        put(heap, at, item);
}

void heap_add(struct heap *heap, struct heap_item *item, uint64_t key) {
        assert(heap->n < heap->size);

        item->key = key;
        put(heap, heap->n++, item);
        if (heap->n > 1)
                heap_sift(heap, item);
}

void heap_remove(struct heap *heap, struct heap_item *item) {
        struct heap_item *last = heap->items[--heap->n];

        if (last == item)
                return;
        put(heap, item->at, last);
        heap_sift(heap, last);
}
