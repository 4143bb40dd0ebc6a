/* base: a run of bytes that somebody else owns */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct slice {
        const char *data;
        size_t size;
};

/* The bytes of a string literal, its NUL left out; the first form in the initialiser of something static. */
#define SLICE_INIT(literal) \
        { (literal), sizeof(literal) - 1 }
#define SLICE(literal) ((struct slice) SLICE_INIT(literal))

/* The bytes of a string, its NUL left out. */
static inline struct slice slice_of(const char *string) {
        return (struct slice){ string, strlen(string) };
}

static inline bool slice_equal(struct slice a, struct slice b) {
        /* By the size of the second: where that is a literal, this is a few instructions and no call. */
        return a.size == b.size && (b.size == 0 || memcmp(a.data, b.data, b.size) == 0);
}
