/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* wire: a buffer with a limit, for bytes on their way in or out */
#pragma once

#include <stddef.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* The bytes between `start` and `end` are in the buffer. All zero but `limit` is an empty buffer, without memory. */
struct wire_buffer {
        char *data;
        size_t start;
        size_t end;
        size_t size;
        size_t limit; /* the most bytes that it may have */
};

#define WIRE_BUFFER_INIT(l) ((struct wire_buffer){ .limit = (l) })

/* Free the memory. The buffer stays usable. */
void wire_buffer_release(struct wire_buffer *buffer);

static inline char *wire_buffer_head(const struct wire_buffer *buffer) {
        return buffer->data + buffer->start;
}

static inline char *wire_buffer_tail(const struct wire_buffer *buffer) {
        return buffer->data + buffer->end;
}

/* The number of bytes in the buffer. */
static inline size_t wire_buffer_fill(const struct wire_buffer *buffer) {
        return buffer->end - buffer->start;
}

/* The number of bytes that fit at the tail without another wire_buffer_reserve(). */
static inline size_t wire_buffer_room(const struct wire_buffer *buffer) {
        return buffer->size - buffer->end;
}

/* The slow part of wire_buffer_reserve(), for too little room. */
_cold_ int wire_buffer_make_room(struct wire_buffer *buffer, size_t n);

/* Make room for N more bytes at the tail; the bytes in the buffer may move. Returns -EMSGSIZE if that would exceed the limit,
 * or -ENOMEM; then nothing has changed. */
static inline int wire_buffer_reserve(struct wire_buffer *buffer, size_t n) {
        return n <= wire_buffer_room(buffer) ? 0 : wire_buffer_make_room(buffer, n);
}

/* N bytes have been written to the tail. */
static inline void wire_buffer_produced(struct wire_buffer *buffer, size_t n) {
        buffer->end += n;
}

/* Remove N bytes at the head. */
static inline void wire_buffer_consumed(struct wire_buffer *buffer, size_t n) {
        buffer->start += n;
        if (buffer->start == buffer->end)
                buffer->start = buffer->end = 0;
}

static inline void wire_buffer_clear(struct wire_buffer *buffer) {
        buffer->start = buffer->end = 0;
}
