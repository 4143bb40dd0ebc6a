/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* wire: attribute lists, the form of all requests and answers */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "wire/buffer.h"

/* An attribute list is `name NUL value NUL` repeated, closed by one more NUL (Postfix attr_print0(3)). */

/* No request has more attributes than `save` with its farewell. Further attributes are counted, but not kept. */
#define WIRE_ATTRIBUTES_MAX 8

/* The state of a parser between two feeds, so that it looks at no byte twice. All zero is a new parser. */
struct wire_parser {
        size_t scanned;                       /* bytes looked at */
        size_t length;                        /* of the list, once it is complete */
        size_t start;                         /* of the current string */
        size_t n_strings;                     /* names and values that are complete */
        size_t ends[2 * WIRE_ATTRIBUTES_MAX]; /* the positions of the NULs of the first strings */
};

/* Parse the first bytes of a stream, of which earlier calls may have seen a part. Returns the length of the first list with
 * its last NUL, or 0 if the list is not complete. Further calls return the same length; then wire_parser_list() may be called,
 * and wire_parser_reset() prepares for the next list. There is no error, because any stream is a sequence of lists: even a
 * senseless list has an end. */
size_t wire_parser_feed(struct wire_parser *parser, const char *data, size_t size);

static inline void wire_parser_reset(struct wire_parser *parser) {
        parser->scanned = 0;
        parser->length = 0;
        parser->start = 0;
        parser->n_strings = 0;
}

/* A complete list: a view of its bytes and of its parser, valid until either changes. */
struct wire_list {
        const char *data;
        const size_t *ends;
        size_t n_attributes; /* the first WIRE_ATTRIBUTES_MAX are available */
};

/* Return the list that wire_parser_feed() found at DATA. */
static inline struct wire_list wire_parser_list(const struct wire_parser *parser, const char *data) {
        return (struct wire_list){ data, parser->ends, parser->n_strings / 2 };
}

/* The name and the value of an attribute, each followed by a NUL. */

static inline struct slice wire_list_name(const struct wire_list *list, size_t i) {
        size_t start = i > 0 ? list->ends[2 * i - 1] + 1 : 0;

        return (struct slice){ list->data + start, list->ends[2 * i] - start };
}

static inline struct slice wire_list_value(const struct wire_list *list, size_t i) {
        size_t start = list->ends[2 * i] + 1;

        return (struct slice){ list->data + start, list->ends[2 * i + 1] - start };
}

/* Write one attribute, or the end of a list, to a buffer. Errors: -ENOMEM, -EMSGSIZE as wire_buffer_reserve(). */
int wire_put(struct wire_buffer *buffer, struct slice name, struct slice value);
int wire_put_number(struct wire_buffer *buffer, struct slice name, uint64_t value);
int wire_put_end(struct wire_buffer *buffer);

/* Parse a decimal number of only digits. A number that is too large for 64 bits is UINT64_MAX. Returns -EINVAL for anything
 * else. */
int wire_number(struct slice text, uint64_t *ret);
