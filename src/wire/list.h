/* wire: attribute lists, the one form in which requests and replies travel */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "wire/buffer.h"

/* An attribute list is `name NUL value NUL` repeated, closed by one more NUL (Postfix attr_print0(3)). */

/* No request has more attributes than `save` with its farewell. What comes after them is counted, not kept. */
#define WIRE_ATTRIBUTES_MAX 8

/* What the parser remembers between two feeds, so that no byte is looked at twice. All zero is a fresh one. */
struct wire_parser {
        size_t scanned;                       /* bytes looked at */
        size_t length;                        /* of the list, once it is complete */
        size_t start;                         /* where the string at hand begins */
        size_t n_strings;                     /* names and values that are complete */
        size_t ends[2 * WIRE_ATTRIBUTES_MAX]; /* where the first of them end, at their NUL */
};

/* Look at the first bytes of a stream, of which earlier calls may have seen a part. Returns the length of the
 * first list, its last NUL included, or 0 if it is not complete. After a length, which further calls repeat,
 * wire_parser_list() may be called; wire_parser_reset() makes the parser ready for the next list. Any stream is a sequence of lists, so
 * there is no error: a list that says nothing sensible still ends where it ends. */
size_t wire_parser_feed(struct wire_parser *parser, const char *data, size_t size);

static inline void wire_parser_reset(struct wire_parser *parser) {
        parser->scanned = 0;
        parser->length = 0;
        parser->start = 0;
        parser->n_strings = 0;
}

/* A list that was found: a view of its bytes and of what its parser knows about them, good until either changes. */
struct wire_list {
        const char *data;
        const size_t *ends;
        size_t n_attributes; /* of which the first WIRE_ATTRIBUTES_MAX can be asked for */
};

/* The list that wire_parser_feed() found at DATA. */
static inline struct wire_list wire_parser_list(const struct wire_parser *parser, const char *data) {
        return (struct wire_list){ data, parser->ends, parser->n_strings / 2 };
}

/* Name and value of an attribute, each with a NUL behind it. */

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

/* Read a decimal number as attributes carry it: digits only. What is too large for 64 bits is UINT64_MAX.
 * Returns -EINVAL for anything else. */
int wire_number(struct slice text, uint64_t *ret);
