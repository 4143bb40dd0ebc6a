/* base: opaque bytes and numbers in a form that people can read and terminals survive */
#pragma once

#include <stdint.h>

#include "base/slice.h"

#define PRINTABLE_MAX 256

/* What a word ends in behind this number. */
static inline const char *plural(uint64_t n) {
        return n == 1 ? "" : "s";
}

struct printable {
        char text[PRINTABLE_MAX];
};

/* The bytes with everything but printable ASCII as \xHH, a backslash doubled, and the end left off where it gets too
 * long. By value, so that it can be used right in the arguments of a call. */
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
