/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agents/control-cursor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/cleanup.h"

/* Seven numbers in hexadecimal, a dot between them. */

void control_cursor_format(const struct control_cursor *cursor, char text[CONTROL_CURSOR_TEXT_MAX]) {
        const struct cache_cursor *at = &cursor->at;

        (void) snprintf(text, CONTROL_CURSOR_TEXT_MAX,
                "%" PRIx64 ".%" PRIx64 ".%" PRIx64 ".%x.%" PRIx64 ".%" PRIx64 ".%" PRIx64, at->bucket,
                at->hash, at->visited, (unsigned) at->within, cursor->after_id, at->id, at->cookie);
}

/* Read one number and the dot or the end behind it. */
static int read_number(const char **p, const char *end, uint64_t *ret) {
        uint64_t value = 0;
        const char *start = *p;

        for (; *p < end && **p != '.'; (*p)++) {
                unsigned c = (unsigned char) **p, digit;

                if (c >= '0' && c <= '9')
                        digit = c - '0';
                else if (c >= 'a' && c <= 'f')
                        digit = c - 'a' + 10;
                else
                        return -EINVAL;
                if (value >> 60)
                        return -EINVAL;
                value = value << 4 | digit;
        }
        if (*p == start)
                return -EINVAL;

        *ret = value;
        if (*p < end)
                (*p)++;
        return 0;
}

int control_cursor_parse(struct slice text, struct control_cursor *ret) {
        const char *p = text.data, *end = text.data + text.size;
        uint64_t numbers[7];

        for (size_t i = 0; i < ELEMENTSOF(numbers); i++)
                if (read_number(&p, end, &numbers[i]) < 0)
                        return -EINVAL;
        if (p != end || numbers[3] > 1)
                return -EINVAL;

        *ret = (struct control_cursor){
                .at = { .bucket = numbers[0],
                        .hash = numbers[1],
                        .visited = numbers[2],
                        .within = numbers[3] > 0,
                        .id = numbers[5],
                        .cookie = numbers[6] },
                .after_id = numbers[4],
        };
        return 0;
}
