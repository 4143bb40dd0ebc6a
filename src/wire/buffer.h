/* wire: a bounded buffer of bytes on their way in or out */
#pragma once

#include <stddef.h>
#include <stdlib.h>

#include "base/cleanup.h"

/* Bytes between `start` and `end` wait to be consumed. All zero but `limit` is an empty buffer, without memory. */
struct wire_buffer {
        char *data;
        size_t start;
        size_t end;
        size_t size;
        size_t limit; /* most bytes it may hold */
};

#define WIRE_BUFFER_INIT(l) ((struct wire_buffer){ .limit = (l) })

/* Give the memory back. The buffer stays usable. */
void wire_buffer_release(struct wire_buffer *buffer);

static inline char *wire_buffer_head(const struct wire_buffer *buffer) {
        return buffer->data + buffer->start;
}

static inline char *wire_buffer_tail(const struct wire_buffer *buffer) {
        return buffer->data + buffer->end;
}

/* Bytes that wait in the buffer. */
static inline size_t wire_buffer_fill(const struct wire_buffer *buffer) {
        return buffer->end - buffer->start;
}

/* Bytes that fit at the tail without another wire_buffer_reserve(). */
static inline size_t wire_buffer_room(const struct wire_buffer *buffer) {
        return buffer->size - buffer->end;
}

/* Where there is too little room, wire_buffer_reserve() ends up here. */
_cold_ int wire_buffer_make_room(struct wire_buffer *buffer, size_t n);

/* Make room for N more bytes at the tail; what is in the buffer may move. Returns -EMSGSIZE if that would be
 * more than the limit, -ENOMEM; then the buffer is as it was. */
static inline int wire_buffer_reserve(struct wire_buffer *buffer, size_t n) {
        return n <= wire_buffer_room(buffer) ? 0 : wire_buffer_make_room(buffer, n);
}

/* N bytes have been written to the tail. */
static inline void wire_buffer_produced(struct wire_buffer *buffer, size_t n) {
        buffer->end += n;
}

/* N bytes at the head are done with. */
static inline void wire_buffer_consumed(struct wire_buffer *buffer, size_t n) {
        buffer->start += n;
        if (buffer->start == buffer->end)
                buffer->start = buffer->end = 0;
}

static inline void wire_buffer_clear(struct wire_buffer *buffer) {
        buffer->start = buffer->end = 0;
}
