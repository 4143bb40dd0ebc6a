/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "wire/list.h"

#include <errno.h>

#include "base/cleanup.h"

size_t wire_parser_feed(struct wire_parser *parser, const char *data, size_t size) {
        size_t at = parser->scanned, start = parser->start, n_strings = parser->n_strings;

        if (parser->length > 0)
                return parser->length;

        while (at < size) {
                const char *nul = memchr(data + at, 0, size - at);

                if (!nul) {
                        at = size;
                        break;
                }

                /* Names and values alternate: an empty string in the place of a name closes the list. */
                at = (size_t) (nul - data) + 1;
                if (at == start + 1 && n_strings % 2 == 0) {
                        parser->length = at;
                        break;
                }

                if (n_strings < ELEMENTSOF(parser->ends))
                        parser->ends[n_strings] = at - 1;
                n_strings++;
                start = at;
        }

        parser->scanned = at;
        parser->start = start;
        parser->n_strings = n_strings;
        return parser->length;
}

int wire_put(struct wire_buffer *buffer, struct slice name, struct slice value) {
        char *p;
        int r;

        r = wire_buffer_reserve(buffer, name.size + value.size + 2);
        if (r < 0)
                return r;

        p = wire_buffer_tail(buffer);
        p = mempcpy(p, name.data, name.size);
        *p++ = 0;
        if (value.size > 0)
                p = mempcpy(p, value.data, value.size);
        *p++ = 0;
        wire_buffer_produced(buffer, name.size + value.size + 2);
        return 0;
}

int wire_put_number(struct wire_buffer *buffer, struct slice name, uint64_t value) {
        char text[sizeof("18446744073709551615")], *p = text + sizeof(text);

        do
                *--p = (char) ('0' + value % 10);
        while ((value /= 10) > 0);

        return wire_put(buffer, name, (struct slice){ p, (size_t) (text + sizeof(text) - p) });
}

int wire_put_end(struct wire_buffer *buffer) {
        int r;

        r = wire_buffer_reserve(buffer, 1);
        if (r < 0)
                return r;

        *wire_buffer_tail(buffer) = 0;
        wire_buffer_produced(buffer, 1);
        return 0;
}

int wire_number(struct slice text, uint64_t *ret) {
        uint64_t value = 0;
        bool too_large = false;

        if (text.size == 0)
                return -EINVAL;

        for (size_t i = 0; i < text.size; i++) {
                unsigned digit = (unsigned char) text.data[i] - (unsigned) '0';

                if (digit > 9)
                        return -EINVAL;
                too_large = too_large || __builtin_mul_overflow(value, 10, &value) ||
                        __builtin_add_overflow(value, digit, &value);
        }

        *ret = too_large ? UINT64_MAX : value;
        return 0;
}
