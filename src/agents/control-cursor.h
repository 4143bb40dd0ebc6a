/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: the position of a walk through the cache, as text that a client sends back */
#pragma once

#include "base/slice.h"
#include "cache/cache.h"

struct control_cursor {
        struct cache_cursor at;
        uint64_t after_id; /* of the last binding taken from the current bucket, 0 for none */
};

#define CONTROL_CURSOR_TEXT_MAX 128

/* Write a cursor as text to TEXT. */
void control_cursor_format(const struct control_cursor *cursor, char text[CONTROL_CURSOR_TEXT_MAX]);

/* Read it back. Any cursor is safe to use, even a forged one. Returns -EINVAL for other text. */
int control_cursor_parse(struct slice text, struct control_cursor *ret);
