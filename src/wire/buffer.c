/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "wire/buffer.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

#define BUFFER_SIZE_MIN 1024

int wire_buffer_make_room(struct wire_buffer *buffer, size_t n) {
        size_t fill = wire_buffer_fill(buffer), size;
        char *data;

        if (n > buffer->limit || fill > buffer->limit - n)
                return -EMSGSIZE;

        if (fill + n <= buffer->size) {
                memmove(buffer->data, wire_buffer_head(buffer), fill);
        } else {
                size = MAX(buffer->size, (size_t) BUFFER_SIZE_MIN);
                while (size < fill + n)
                        size = size <= buffer->limit / 2 ? size * 2 : buffer->limit;
                size = MIN(size, buffer->limit);

                data = malloc(size);
                if (!data)
                        return -ENOMEM;
                if (fill > 0)
                        memcpy(data, wire_buffer_head(buffer), fill);
                free(buffer->data);
                buffer->data = data;
                buffer->size = size;
        }

        buffer->start = 0;
        buffer->end = fill;
        return 0;
}

void wire_buffer_release(struct wire_buffer *buffer) {
        free(buffer->data);
        *buffer = WIRE_BUFFER_INIT(buffer->limit);
}
