/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: runs other programs and waits for them */
#pragma once

#include <stddef.h>

/* Run a program from PATH with these arguments (NULL-terminated, the first is its name), and discard its
 * output. Returns its exit status, or negative errno: -ECHILD if a signal ended it. */
int program_run(const char *const arguments[]);

/* The same, but put its standard output into TEXT, of SIZE bytes, NUL-terminated and without the last line end, and leave
 * its standard error alone. Returns -E2BIG if the output is longer. */
int program_read(const char *const arguments[], char *text, size_t size);
