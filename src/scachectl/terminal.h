/* scachectl: what people look at */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

/* Does standard output go to a terminal? */
bool terminal_is_there(void);

/* How many columns there are: those of the terminal, of COLUMNS, or 80. */
size_t terminal_columns(void);

/* Begin and end of what stands out, empty where that is unwanted (NO_COLOR, TERM=dumb) or goes nowhere. */
const char *terminal_strong(void);
const char *terminal_plain(void);

/* Bytes as printable ASCII, \n, \t, \\ and \xHH for all else; if that has more than MAX columns it ends in "...".
 * Returns memory to free, NULL if there is none. */
char *terminal_text(struct slice bytes, size_t max);

/* A time in µs in few letters: 12ms, 4.5s, 3min, 5h, 2d. By value, to be used right in the arguments of a call. */
struct terminal_short {
        char text[32];
};
struct terminal_short terminal_time(uint64_t us);

/* A number of bytes in few letters: 512 B, 1.5 KiB. */
struct terminal_short terminal_bytes(uint64_t bytes);
