/* scachectl: other programs, run to their end */
#pragma once

#include <stddef.h>

/* Run a program, found in PATH, with these arguments (NULL-terminated, the first its name). What it writes is thrown
 * away. Returns its exit status, or negative errno: -ECHILD if a signal ended it. */
int program_run(const char *const arguments[]);

/* The same, but put what it writes to its standard output into TEXT, of SIZE bytes, NUL-terminated and without the line
 * end at its end; what it writes to standard error is for the user to see. Returns -E2BIG if that is longer. */
int program_read(const char *const arguments[], char *text, size_t size);
