/* base: a run of bytes that somebody else owns */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct slice {
        const char *data;
        size_t size;
};

#define SLICE(literal) ((struct slice){ (literal), sizeof(literal) - 1 })

/* The bytes of a string, its NUL left out. */
static inline struct slice slice_of(const char *string) {
        return (struct slice){ string, strlen(string) };
}

static inline bool slice_equal(struct slice a, struct slice b) {
        return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}
