/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base: a view of bytes that somebody else owns */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct slice {
        const char *data;
        size_t size;
};

/* The bytes of a string literal without its NUL; SLICE_INIT() is for static initialisers. */
#define SLICE_INIT(literal) \
        { (literal), sizeof(literal) - 1 }
#define SLICE(literal) ((struct slice) SLICE_INIT(literal))

/* Return the bytes of a string without its NUL. */
static inline struct slice slice_of(const char *string) {
        return (struct slice){ string, strlen(string) };
}

static inline bool slice_equal(struct slice a, struct slice b) {
        /* By the size of the second: where that is a literal, this is a few instructions and no call. */
        return a.size == b.size && (b.size == 0 || memcmp(a.data, b.data, b.size) == 0);
}
