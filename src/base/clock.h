/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base: points in time, in microseconds */
#pragma once

#include <stdint.h>
#include <time.h>

#define USEC_PER_SEC  UINT64_C(1000000)
#define USEC_PER_MSEC UINT64_C(1000)
#define NSEC_PER_USEC UINT64_C(1000)
#define USEC_INFINITY UINT64_MAX

/* Return the time of a clock, in µs. Deadlines use CLOCK_BOOTTIME: it goes on while the machine is suspended, and while
 * the daemon restarts. */
static inline uint64_t clock_now(clockid_t clock) {
        struct timespec ts;

        (void) clock_gettime(clock, &ts);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / NSEC_PER_USEC;
}

/* Return the sum of two times, USEC_INFINITY on overflow. */
static inline uint64_t usec_add(uint64_t a, uint64_t b) {
        uint64_t sum;

        return __builtin_add_overflow(a, b, &sum) ? USEC_INFINITY : sum;
}
