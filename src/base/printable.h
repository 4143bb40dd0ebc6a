/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base: shows bytes and numbers to people, safely for terminals */
#pragma once

#include <stdint.h>

#include "base/slice.h"

#define PRINTABLE_MAX 256

/* Return the ending of a noun after this number. */
static inline const char *plural(uint64_t n) {
        return n == 1 ? "" : "s";
}

struct printable {
        char text[PRINTABLE_MAX];
};

/* Return bytes as printable ASCII, with \xHH for all others and a doubled backslash, cut if they get too long. By value, to be
 * used in the arguments of a call. */
static inline struct printable printable(struct slice bytes) {
        static const char hex[] = "0123456789abcdef";
        struct printable ret;
        size_t n = 0;

        for (size_t i = 0; i < bytes.size; i++) {
                unsigned char c = (unsigned char) bytes.data[i];

                if (n + sizeof("\\xff...") > sizeof(ret.text)) {
                        memcpy(ret.text + n, "...", 3);
                        n += 3;
                        break;
                }
                if (c == '\\') {
                        ret.text[n++] = '\\';
                        ret.text[n++] = '\\';
                } else if (c >= 0x20 && c < 0x7f) {
                        ret.text[n++] = (char) c;
                } else {
                        ret.text[n++] = '\\';
                        ret.text[n++] = 'x';
                        ret.text[n++] = hex[c >> 4];
                        ret.text[n++] = hex[c & 15];
                }
        }

        ret.text[n] = 0;
        return ret;
}
