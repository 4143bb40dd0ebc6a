/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "settings/value.h"

#include <errno.h>
#include <string.h>
#include <syslog.h>

#include "base/cleanup.h"
#include "base/clock.h"

static const struct {
        const char *name;
        int value;
} facilities[] = {
        { "auth", LOG_AUTH },
        { "authpriv", LOG_AUTHPRIV },
        { "cron", LOG_CRON },
        { "daemon", LOG_DAEMON },
        { "ftp", LOG_FTP },
        { "kern", LOG_KERN },
        { "lpr", LOG_LPR },
        { "mail", LOG_MAIL },
        { "news", LOG_NEWS },
        { "security", LOG_AUTH },
        { "syslog", LOG_SYSLOG },
        { "user", LOG_USER },
        { "uucp", LOG_UUCP },
        { "local0", LOG_LOCAL0 },
        { "local1", LOG_LOCAL1 },
        { "local2", LOG_LOCAL2 },
        { "local3", LOG_LOCAL3 },
        { "local4", LOG_LOCAL4 },
        { "local5", LOG_LOCAL5 },
        { "local6", LOG_LOCAL6 },
        { "local7", LOG_LOCAL7 },
};

/* The letters after a backslash, and the bytes that they stand for. */
static const char escape_letters[] = "abfnrtv\\\"'?";
static const char escape_bytes[] = "\a\b\f\n\r\t\v\\\"'?";

static char lower(char c) {
        return c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
}

static bool equal_in_any_case(const char *a, const char *b) {
        for (; lower(*a) == lower(*b); a++, b++)
                if (*a == '\0')
                        return true;

        return false;
}

/* Read digits, and move *TEXT behind them. */
static int take_number(const char **text, uint64_t *ret) {
        const char *p = *text;
        uint64_t number = 0;

        if (*p < '0' || *p > '9')
                return -EINVAL;

        for (; *p >= '0' && *p <= '9'; p++)
                if (__builtin_mul_overflow(number, UINT64_C(10), &number) ||
                        __builtin_add_overflow(number, (uint64_t) (*p - '0'), &number))
                        return -EINVAL;

        *text = p;
        *ret = number;
        return 0;
}

/* Read a number, and at most one letter of UNITS, which multiplies it by the factor at the same index. */
static int take_scaled(const char *text, const char *units, const uint64_t *factors, uint64_t *ret) {
        uint64_t number;

        if (take_number(&text, &number) < 0)
                return -EINVAL;

        if (*text != '\0') {
                const char *unit = strchr(units, *text);

                if (!unit || text[1] != '\0' ||
                        __builtin_mul_overflow(number, factors[unit - units], &number))
                        return -EINVAL;
        }

        *ret = number;
        return 0;
}

int settings_value_time(const char *text, uint64_t *ret_usec) {
        static const uint64_t seconds[] = { 1, 60, 60 * 60, 24 * 60 * 60, 7 * 24 * 60 * 60 };
        uint64_t number;

        if (take_scaled(text, "smhdw", seconds, &number) < 0 || number > SETTINGS_TIME_MAX_SEC)
                return -EINVAL;

        *ret_usec = number * USEC_PER_SEC;
        return 0;
}

int settings_value_count(const char *text, uint64_t *ret) {
        return take_scaled(text, "", NULL, ret);
}

int settings_value_size(const char *text, uint64_t *ret) {
        static const uint64_t bytes[] = { UINT64_C(1) << 10, UINT64_C(1) << 20, UINT64_C(1) << 30 };

        return take_scaled(text, "KMG", bytes, ret);
}

int settings_value_bool(const char *text, bool *ret) {
        bool yes = equal_in_any_case(text, "yes");

        if (!yes && !equal_in_any_case(text, "no"))
                return -EINVAL;

        *ret = yes;
        return 0;
}

int settings_value_facility(const char *text, int *ret) {
        for (size_t i = 0; i < ELEMENTSOF(facilities); i++)
                if (equal_in_any_case(text, facilities[i].name)) {
                        *ret = facilities[i].value;
                        return 0;
                }

        return -EINVAL;
}

static int digit_value(char c, int base) {
        int value;

        c = lower(c);
        if (c >= '0' && c <= '9')
                value = c - '0';
        else if (c >= 'a' && c <= 'f')
                value = c - 'a' + 10;
        else
                return -1;

        return value < base ? value : -1;
}

/* Read the letters after a backslash, and move *TEXT behind them. Returns the byte, or -1 with the problem. */
static int take_escape(const char **text, const char **ret_problem) {
        const char *p = *text, *letter;
        int byte = 0, n = 0;

        if (*p == '\0') {
                *ret_problem = "there is nothing after the last backslash";
                return -1;
        }

        if (*p == 'x') {
                for (p++; n < 2 && digit_value(*p, 16) >= 0; p++, n++)
                        byte = byte * 16 + digit_value(*p, 16);
                if (n < 2) {
                        *ret_problem = "\\x needs two hexadecimal digits";
                        return -1;
                }
        } else if (digit_value(*p, 8) >= 0) {
                for (; n < 3 && digit_value(*p, 8) >= 0; p++, n++)
                        byte = byte * 8 + digit_value(*p, 8);
                if (byte > UINT8_MAX) {
                        *ret_problem = "the largest octal escape is \\377";
                        return -1;
                }
        } else {
                letter = strchr(escape_letters, *p);
                if (!letter) {
                        *ret_problem = "unknown escape, the known ones are \\a \\b \\f \\n \\r \\t \\v \\\\ "
                                       "\\\" \\' \\? "
                                       "\\xHH \\ooo";
                        return -1;
                }
                *text = p + 1;
                return (unsigned char) escape_bytes[letter - escape_letters];
        }

        if (byte == 0) {
                *ret_problem = "NUL is not allowed";
                return -1;
        }

        *text = p;
        return byte;
}

int settings_value_unescape(
        const char *text, char *out, size_t size, size_t *ret_size, const char **ret_problem) {
        size_t n = 0;

        while (*text) {
                int byte = (unsigned char) *text++;

                if (byte == '\\') {
                        byte = take_escape(&text, ret_problem);
                        if (byte < 0)
                                return -EINVAL;
                }

                if (n == size) {
                        *ret_problem = "it is too long";
                        return -EINVAL;
                }
                out[n++] = (char) byte;
        }

        *ret_size = n;
        return 0;
}

void settings_value_escape(const char *bytes, size_t size, char *out) {
        static const char digits[] = "0123456789abcdef";

        for (size_t i = 0; i < size; i++) {
                unsigned char byte = (unsigned char) bytes[i];
                bool outermost = i == 0 || i + 1 == size;
                const char *letter = byte ? strchr("\r\n\t\\", byte) : NULL;

                if (letter) {
                        *out++ = '\\';
                        *out++ = "rnt\\"[letter - "\r\n\t\\"];
                } else if (byte == '$') {
                        *out++ = '$';
                        *out++ = '$';
                } else if (byte < ' ' || byte > '~' || (byte == ' ' && outermost)) {
                        *out++ = '\\';
                        *out++ = 'x';
                        *out++ = digits[byte >> 4];
                        *out++ = digits[byte & 15];
                } else {
                        *out++ = (char) byte;
                }
        }
        *out = '\0';
}

void settings_value_quote(const char *text, char *out) {
        for (; *text; text++) {
                if (*text == '$')
                        *out++ = '$';
                *out++ = *text;
        }
        *out = '\0';
}
