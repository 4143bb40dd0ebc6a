/* agents: where a walk through the cache stands, as text that a client brings back */
#pragma once

#include "base/slice.h"
#include "cache/cache.h"

struct control_cursor {
        struct cache_cursor at;
        uint64_t after_id; /* of the last binding that was taken in the bucket at hand, 0 for none */
};

#define CONTROL_CURSOR_TEXT_MAX 80

/* Write a cursor as text to TEXT. */
void control_cursor_format(const struct control_cursor *cursor, char text[CONTROL_CURSOR_TEXT_MAX]);

/* Read it back. Any cursor is safe to use, be it forged. Returns -EINVAL for text that is none. */
int control_cursor_parse(struct slice text, struct control_cursor *ret);
