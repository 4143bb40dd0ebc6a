/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base: release of resources by scope, shared by every room */
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f)   __attribute__((cleanup(f)))
#define _unused_       __attribute__((unused))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _public_       __attribute__((visibility("default")))
/* Rarely called: the compiler keeps it, and the branches that lead to it, away from hot code. */
#define _cold_ __attribute__((cold))

#define ELEMENTSOF(x) (sizeof(x) / sizeof((x)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))

/* The structure whose MEMBER is at POINTER. */
#define CONTAINER_OF(pointer, type, member) ((type *) ((char *) (pointer) -offsetof(type, member)))

/* Define free_fnp() for _cleanup_() from a function that frees its argument. */
#define DEFINE_CLEANUP(type, free_fn)            \
        static inline void free_fn##p(type *p) { \
                if (*p)                          \
                        free_fn(*p);             \
        }                                        \
        struct define_cleanup_takes_a_semicolon

/* Free the memory that a variable points to, when it leaves its scope. */
static inline void freep(void *p) {
        free(*(void **) p);
}

/* Close the descriptor in a variable, if there is one, when it leaves its scope. */
static inline void closep(const int *fd) {
        if (*fd >= 0)
                (void) close(*fd);
}

/* Take the descriptor out of a variable. The caller then owns it. */
static inline int steal_fd(int *fd) {
        int r = *fd;

        *fd = -1;
        return r;
}

/* Take the pointer out of a variable. The caller then owns it. */
#define STEAL(p)                                   \
        ({                                         \
                __typeof__(p) *steal_at_ = &(p);   \
                __typeof__(p) steal_ = *steal_at_; \
                *steal_at_ = NULL;                 \
                steal_;                            \
        })
