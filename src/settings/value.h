/* settings: from the text of a value to what it means, and back */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SETTINGS_TIME_MAX_SEC UINT64_C(2147483647) /* as in Postfix */

/* Every one of these takes the whole text, wants nothing before or after the value, leaves its result alone on
 * failure and knows no locale. They return 0 or -EINVAL. */

/* A whole number followed by one of s m h d w, s if there is none, at most SETTINGS_TIME_MAX_SEC. In µs. */
int settings_value_time(const char *text, uint64_t *ret_usec);

/* A whole number. */
int settings_value_count(const char *text, uint64_t *ret);

/* A whole number of bytes, or of K, M or G of them (powers of 1024). */
int settings_value_size(const char *text, uint64_t *ret);

/* yes or no, in any case: Postfix knows no others. */
int settings_value_bool(const char *text, bool *ret);

/* The name of a syslog facility, in any case. Yields LOG_MAIL and the like. */
int settings_value_facility(const char *text, int *ret);

/* Bytes written with C's escapes: \a \b \f \n \r \t \v \\ \" \' \? \xHH \ooo. At most size bytes go to out.
 * On failure *ret_problem says what is wrong with the text. */
int settings_value_unescape(
        const char *text, char *out, size_t size, size_t *ret_size, const char **ret_problem);

/* The other way round, as a value in main.cf syntax: nothing in it is trimmed or expanded when it is read again.
 * out has room for size * 4 + 1 bytes. */
void settings_value_escape(const char *bytes, size_t size, char *out);

/* A value that needs no escapes, in main.cf syntax: every $ becomes $$. out has room for twice the text + 1 bytes. */
void settings_value_quote(const char *text, char *out);
