/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "settings/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

/* Longer texts are cut, so that the sentence stays readable. */
#define SENTENCE_MAX  1024
#define PATH_SHOWN    512
#define TEXT_SHOWN    100
#define ESCAPE_LENGTH 4

/* Append to a sentence, which may fill up. */
static void append(char *sentence, size_t *length, const char *format, ...) _printf_(3, 4);

static void append(char *sentence, size_t *length, const char *format, ...) {
        va_list arguments;
        int r;

        va_start(arguments, format);
        r = vsnprintf(sentence + *length, SENTENCE_MAX - *length, format, arguments);
        va_end(arguments);
        if (r > 0)
                *length = MIN(*length + (size_t) r, SENTENCE_MAX - 1u);
}

static void append_cut(char *sentence, size_t *length, const char *text) {
        append(sentence, length, "%.*s%s", TEXT_SHOWN, text,
                strnlen(text, TEXT_SHOWN + 1) > TEXT_SHOWN ? "..." : "");
}

/* A file may contain any bytes: keep control characters from the terminal and the journal. */
static void make_printable(const char *sentence, char *printable) {
        static const char digits[] = "0123456789abcdef";

        for (const char *p = sentence; *p; p++) {
                unsigned char byte = (unsigned char) *p;

                if (byte >= ' ' && byte <= '~') {
                        *printable++ = *p;
                } else {
                        *printable++ = '\\';
                        *printable++ = 'x';
                        *printable++ = digits[byte >> 4];
                        *printable++ = digits[byte & 15];
                }
        }
        *printable = '\0';
}

void settings_report(struct settings_reporter *reporter, int priority, struct settings_place place,
        const char *name, const char *value, const char *format, ...) {
        char sentence[SENTENCE_MAX], printable[SENTENCE_MAX * ESCAPE_LENGTH];
        size_t length = 0;
        va_list arguments;

        if (priority <= LOG_ERR)
                reporter->n_errors++;
        if (!reporter->report || reporter->n_reports >= SETTINGS_REPORTS_MAX)
                return;

        if (++reporter->n_reports == SETTINGS_REPORTS_MAX) {
                reporter->report(
                        reporter->userdata, LOG_WARNING, "further problems with the settings are not shown");
                return;
        }

        append(sentence, &length, "%.*s", PATH_SHOWN, place.path);
        if (place.line > 0)
                append(sentence, &length, ":%u", place.line);
        append(sentence, &length, ": ");
        if (name && *name) {
                append_cut(sentence, &length, name);
                if (value) {
                        append(sentence, &length, " = ");
                        append_cut(sentence, &length, value);
                }
                append(sentence, &length, ": ");
        }

        va_start(arguments, format);
        (void) vsnprintf(sentence + length, sizeof(sentence) - length, format, arguments);
        va_end(arguments);

        make_printable(sentence, printable);
        reporter->report(reporter->userdata, priority, printable);
}
