/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unit: what every unit test includes, in the order that cmocka wants */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A test without set-up is just its function's body. */
#define TEST(name) static void name(void **state __attribute__((unused)))

/* Numbers that look random and are the same in every run (xorshift64). */
static inline uint64_t next_random(uint64_t *seed) {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        return *seed;
}
