/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base: a keyed hash: without the key, nobody can choose inputs that collide */
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

#include "base/slice.h"

struct siphash_key {
        uint64_t k0, k1;
};

/* SipHash-C-D of Aumasson and Bernstein ("SipHash: a fast short-input PRF", 2012). C and D are constants at every
 * call, so the compiler unrolls the rounds. */
static inline __attribute__((always_inline)) uint64_t siphash_rounds(
        unsigned c, unsigned d, const struct siphash_key *key, struct slice bytes) {
        uint64_t v0 = key->k0 ^ UINT64_C(0x736f6d6570736575), v1 = key->k1 ^ UINT64_C(0x646f72616e646f6d);
        uint64_t v2 = key->k0 ^ UINT64_C(0x6c7967656e657261), v3 = key->k1 ^ UINT64_C(0x7465646279746573);
        const char *p = bytes.data;
        uint64_t word, last = (uint64_t) bytes.size << 56;

#define ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define ROUNDS(n)                               \
        for (unsigned i_ = 0; i_ < (n); i_++) { \
                v0 += v1;                       \
                v1 = ROTATE(v1, 13) ^ v0;       \
                v0 = ROTATE(v0, 32);            \
                v2 += v3;                       \
                v3 = ROTATE(v3, 16) ^ v2;       \
                v0 += v3;                       \
                v3 = ROTATE(v3, 21) ^ v0;       \
                v2 += v1;                       \
                v1 = ROTATE(v1, 17) ^ v2;       \
                v2 = ROTATE(v2, 32);            \
        }

        for (size_t left = bytes.size / 8; left > 0; left--, p += 8) {
                memcpy(&word, p, 8);
                word = le64toh(word);
                v3 ^= word;
                ROUNDS(c);
                v0 ^= word;
        }

        for (size_t i = 0; i < bytes.size % 8; i++)
                last |= (uint64_t) (unsigned char) p[i] << (8 * i);
        v3 ^= last;
        ROUNDS(c);
        v0 ^= last;
        v2 ^= 0xff;
        ROUNDS(d);

#undef ROUNDS
#undef ROTATE
        return v0 ^ v1 ^ v2 ^ v3;
}

/* SipHash-1-3: enough against flooding, because nobody sees the hashes, and twice as fast as SipHash-2-4. */
static inline uint64_t siphash13(const struct siphash_key *key, struct slice bytes) {
        return siphash_rounds(1, 3, key, bytes);
}
