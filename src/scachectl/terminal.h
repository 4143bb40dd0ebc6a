/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: text for people and terminals */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

/* Return whether standard output is a terminal. */
bool terminal_is_there(void);

/* Return the width: COLUMNS, the terminal's, or 80. */
size_t terminal_columns(void);

/* Return the codes that begin and end bold text; empty with NO_COLOR or TERM=dumb, or if there is no terminal. */
const char *terminal_strong(void);
const char *terminal_plain(void);

/* Return bytes as printable ASCII, with \n, \t, \\ and \xHH for all others; a text of more than MAX columns is cut and ends
 * in "...". The caller frees it; NULL if there is no memory. */
char *terminal_text(struct slice bytes, size_t max);

/* Return a time in µs as a short text: 12ms, 4.5s, 3min, 5h, 2d. By value, to be used in the arguments of a call. */
struct terminal_short {
        char text[32];
};
struct terminal_short terminal_time(uint64_t us);

/* Return a number of bytes as a short text: 512 B, 1.5 KiB. */
struct terminal_short terminal_bytes(uint64_t bytes);
