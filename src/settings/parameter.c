/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "settings/parameter.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "settings/value.h"

#define TIME_MAX (SETTINGS_TIME_MAX_SEC * USEC_PER_SEC)

#define READ_ONLY(name) \
        { name, NULL, SETTINGS_READ_ONLY, 0, false, 0, 0 }
#define PLAIN(name, fallback, kind, field) \
        { name, fallback, kind, offsetof(struct settings, field), false, 0, 0 }
#define NUMBER(name, fallback, kind, field, zero, minimum, maximum) \
        { name, fallback, kind, offsetof(struct settings, field), zero, minimum, maximum }

/* clang-format off */
const struct settings_parameter settings_parameters[SETTINGS_PARAMETERS] = {
        NUMBER("agent_limit", "0", SETTINGS_COUNT, agent_limit, true, 1, SETTINGS_COUNT_MAX),
        NUMBER("agent_memory_limit", "8M", SETTINGS_SIZE, agent_memory_limit,
                true, SETTINGS_MEMORY_MIN, SETTINGS_MEMORY_MAX),
        READ_ONLY("config_directory"),
        PLAIN("connection_cache_epochs", "yes", SETTINGS_BOOL, epochs),
        PLAIN("connection_cache_farewell", "QUIT\\r\\n", SETTINGS_FAREWELL, farewell),
        NUMBER("connection_cache_history_limit", "65536", SETTINGS_COUNT, history_limit, true, 1, SETTINGS_COUNT_MAX),
        NUMBER("connection_cache_memory_limit", "64M", SETTINGS_SIZE, memory_limit,
                true, SETTINGS_MEMORY_MIN, SETTINGS_MEMORY_MAX),
        NUMBER("connection_cache_size_limit", "0", SETTINGS_COUNT, connection_limit, true, 1, SETTINGS_COUNT_MAX),
        NUMBER("connection_cache_status_update_time", "600s", SETTINGS_TIME, status_update_time_us,
                false, USEC_PER_SEC, TIME_MAX),
        NUMBER("connection_cache_ttl_limit", "2s", SETTINGS_TIME, ttl_limit_us, false, USEC_PER_SEC, TIME_MAX),
        NUMBER("daemon_timeout", "18000s", SETTINGS_TIME, daemon_timeout_us, false, USEC_PER_SEC, TIME_MAX),
        NUMBER("ipc_timeout", "3600s", SETTINGS_TIME, ipc_timeout_us, false, USEC_PER_SEC, TIME_MAX),
        NUMBER("max_idle", "100s", SETTINGS_TIME, max_idle_us, true, USEC_PER_SEC, TIME_MAX),
        PLAIN("postfix_config_directories", "/etc/postfix", SETTINGS_PATHS, postfix_directories),
        READ_ONLY("process_id"),
        READ_ONLY("process_name"),
        NUMBER("request_size_limit", "128K", SETTINGS_SIZE, request_size_limit,
                true, SETTINGS_REQUEST_MIN, SETTINGS_REQUEST_MAX),
        READ_ONLY("service_name"),
        PLAIN("share_between_users", "no", SETTINGS_BOOL, share_between_users),
        PLAIN("syslog_facility", "mail", SETTINGS_FACILITY, syslog_facility),
        PLAIN("syslog_name", "", SETTINGS_NAME, syslog_name),
};
/* clang-format on */

const struct settings_parameter *settings_parameter_find(struct slice name) {
        for (size_t i = 0; i < SETTINGS_PARAMETERS; i++)
                if (slice_equal(slice_of(settings_parameters[i].name), name))
                        return &settings_parameters[i];

        return NULL;
}

/* Return the number of letters to insert, remove or replace to turn one name into the other. */
static size_t distance(const char *a, const char *b) {
        size_t row[SETTINGS_NAME_MAX + 1], n = strnlen(b, SETTINGS_NAME_MAX);

        for (size_t j = 0; j <= n; j++)
                row[j] = j;

        for (size_t i = 1; a[i - 1]; i++) {
                size_t diagonal = row[0];

                row[0] = i;
                for (size_t j = 1; j <= n; j++) {
                        size_t replaced = diagonal + (a[i - 1] != b[j - 1]);

                        diagonal = row[j];
                        row[j] = MIN(replaced, MIN(row[j], row[j - 1]) + 1);
                }
        }

        return row[n];
}

const struct settings_parameter *settings_parameter_guess(const char *name) {
        const struct settings_parameter *found = NULL;
        size_t length = strnlen(name, SETTINGS_NAME_MAX + 1), nearest;

        if (length > SETTINGS_NAME_MAX)
                return NULL;

        /* A typing error is at most one letter in four, and at most three. */
        nearest = MIN(length / 4, 3u) + 1;
        for (size_t i = 0; i < SETTINGS_PARAMETERS; i++) {
                size_t d = distance(name, settings_parameters[i].name);

                if (d < nearest) {
                        nearest = d;
                        found = &settings_parameters[i];
                }
        }

        return found;
}

static int expect(char *expected, const char *format, ...) _printf_(2, 3);

static int expect(char *expected, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(expected, SETTINGS_EXPECTED_MAX, format, arguments);
        va_end(arguments);
        return -EINVAL;
}

static int set_number(
        const struct settings_parameter *parameter, const char *text, uint64_t *value, char *expected) {
        const char *zero = parameter->zero ? ", or 0" : "";
        uint64_t number = 0;
        int r;

        if (parameter->kind == SETTINGS_TIME)
                r = settings_value_time(text, &number);
        else if (parameter->kind == SETTINGS_SIZE)
                r = settings_value_size(text, &number);
        else
                r = settings_value_count(text, &number);

        if (r >= 0 &&
                ((number >= parameter->minimum && number <= parameter->maximum) ||
                        (number == 0 && parameter->zero))) {
                *value = number;
                return 0;
        }

        if (parameter->kind == SETTINGS_TIME)
                return expect(expected,
                        "expected a time from %" PRIu64 "s to %" PRIu64
                        "s%s: a whole number, optionally followed by s, m, h, d or w",
                        parameter->minimum / USEC_PER_SEC, parameter->maximum / USEC_PER_SEC, zero);
        if (parameter->kind == SETTINGS_SIZE)
                return expect(expected,
                        "expected from %" PRIu64 " to %" PRIu64
                        " bytes%s: a whole number, optionally followed by K, M or G",
                        parameter->minimum, parameter->maximum, zero);
        return expect(expected, "expected a whole number from %" PRIu64 " to %" PRIu64 "%s",
                parameter->minimum, parameter->maximum, zero);
}

static int set_name(const char *text, struct settings *settings, char *expected) {
        size_t n = 0;

        /* It is a field in the journal: no blanks and no control characters. */
        while ((unsigned char) text[n] > ' ' && text[n] != 0x7f)
                n++;
        if (text[n] != '\0' || n > SETTINGS_NAME_MAX)
                return expect(
                        expected, "expected a name of at most %u bytes without blanks", SETTINGS_NAME_MAX);

        settings->syslog_name = strdup(text);
        return settings->syslog_name ? 0 : -ENOMEM;
}

static int set_paths(const char *text, struct settings *settings, char *expected) {
        static const char between[] = ", \t\r\n";
        const char *at = text + strspn(text, between);

        if (!*at)
                return expect(expected, "expected the path of a directory");
        for (; *at; at += strspn(at, between)) {
                if (*at != '/')
                        return expect(
                                expected, "expected paths that begin with /, with blanks or commas between");
                at += strcspn(at, between);
        }

        settings->postfix_directories = strdup(text);
        return settings->postfix_directories ? 0 : -ENOMEM;
}

static int set_farewell(const char *text, struct settings *settings, char *expected) {
        _cleanup_(freep) char *bytes = NULL;
        const char *problem;
        size_t size;
        int r;

        bytes = malloc(SETTINGS_FAREWELL_MAX + 1);
        if (!bytes)
                return -ENOMEM;

        r = settings_value_unescape(text, bytes, SETTINGS_FAREWELL_MAX, &size, &problem);
        if (r < 0)
                return expect(expected, "expected at most %u bytes with C's escapes: %s",
                        SETTINGS_FAREWELL_MAX, problem);

        bytes[size] = '\0';
        settings->farewell = STEAL(bytes);
        settings->farewell_size = size;
        return 0;
}

int settings_parameter_set(const struct settings_parameter *parameter, const char *text,
        struct settings *settings, char *expected) {
        void *field = (char *) settings + parameter->offset;

        switch (parameter->kind) {
        case SETTINGS_TIME:
        case SETTINGS_COUNT:
        case SETTINGS_SIZE:
                return set_number(parameter, text, field, expected);
        case SETTINGS_BOOL:
                return settings_value_bool(text, field) < 0 ? expect(expected, "expected yes or no") : 0;
        case SETTINGS_FACILITY:
                return settings_value_facility(text, field) < 0
                        ? expect(expected, "expected a syslog facility, such as mail, daemon or local0")
                        : 0;
        case SETTINGS_NAME:
                return set_name(text, settings, expected);
        case SETTINGS_FAREWELL:
                return set_farewell(text, settings, expected);
        case SETTINGS_PATHS:
                return set_paths(text, settings, expected);
        case SETTINGS_READ_ONLY:
                break;
        }

        return 0;
}
