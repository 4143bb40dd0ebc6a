#include "wire/list.h"

#include <errno.h>

#include "base/cleanup.h"

size_t wire_parser_feed(struct wire_parser *parser, const char *data, size_t size) {
        while (parser->length == 0 && parser->scanned < size) {
                size_t scanned = parser->scanned, n_strings = parser->n_strings, end;
                const char *nul;

                /* Names and values alternate: an empty string in the place of a name closes the list. */
                if (data[scanned] == 0 && scanned == parser->start && n_strings % 2 == 0) {
                        parser->length = parser->scanned = scanned + 1;
                        break;
                }

                nul = memchr(data + scanned, 0, size - scanned);
                if (!nul) {
                        parser->scanned = size;
                        break;
                }

                end = (size_t) (nul - data);
                if (n_strings < ELEMENTSOF(parser->ends))
                        parser->ends[n_strings] = end;
                parser->n_strings = n_strings + 1;
                parser->start = parser->scanned = end + 1;
        }

        return parser->length;
}

void wire_parser_list(const struct wire_parser *parser, const char *data, struct wire_list *ret) {
        size_t start = 0;

        ret->n_attributes = parser->n_strings / 2;
        for (size_t i = 0; i < MIN(ret->n_attributes, (size_t) WIRE_ATTRIBUTES_MAX); i++) {
                size_t name_end = parser->ends[2 * i], value_end = parser->ends[2 * i + 1];

                ret->attributes[i] = (struct wire_attribute){
                        .name = { data + start, name_end - start },
                        .value = { data + name_end + 1, value_end - name_end - 1 },
                };
                start = value_end + 1;
        }
}

bool wire_list_is(const struct wire_list *list, const struct slice names[], size_t n_names) {
        if (list->n_attributes != n_names || n_names > WIRE_ATTRIBUTES_MAX)
                return false;

        for (size_t i = 0; i < n_names; i++)
                if (!slice_equal(list->attributes[i].name, names[i]))
                        return false;

        return true;
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
