/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settings: converts the text of a value to its meaning, and back */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SETTINGS_TIME_MAX_SEC UINT64_C(2147483647) /* as in Postfix */

/* The text must be the value and nothing else. On failure the result does not change. There is no locale. These return 0 or
 * -EINVAL. */

/* A whole number and one of s m h d w (default: s), at most SETTINGS_TIME_MAX_SEC. The result is in µs. */
int settings_value_time(const char *text, uint64_t *ret_usec);

/* A whole number. */
int settings_value_count(const char *text, uint64_t *ret);

/* A whole number of bytes, or a number followed by K, M or G (powers of 1024). */
int settings_value_size(const char *text, uint64_t *ret);

/* yes or no, in any case, as in Postfix. */
int settings_value_bool(const char *text, bool *ret);

/* The name of a syslog facility, in any case. The result is LOG_MAIL and the like. */
int settings_value_facility(const char *text, int *ret);

/* Bytes with C's escapes: \a \b \f \n \r \t \v \\ \" \' \? \xHH \ooo. At most SIZE bytes go to OUT. On failure
 * *ret_problem is the problem in words. */
int settings_value_unescape(
        const char *text, char *out, size_t size, size_t *ret_size, const char **ret_problem);

/* The reverse, as a value in main.cf syntax: when it is read again, nothing in it is trimmed or expanded. OUT has room for
 * SIZE * 4 + 1 bytes. */
void settings_value_escape(const char *bytes, size_t size, char *out);

/* A value without escapes in main.cf syntax: every $ becomes $$. OUT has room for twice the text and one byte more. */
void settings_value_quote(const char *text, char *out);
