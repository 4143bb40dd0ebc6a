/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests of settings: load them from text and hear what is said */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "settings/file.h"
#include "settings/settings.h"

/* Everything one load had to say, a line for each sentence. */
struct said {
        char text[128 * 1024];
        size_t size;
        unsigned n_errors;
        unsigned n_warnings;
};

static inline void hear(void *userdata, int priority, const char *message) {
        struct said *said = userdata;

        said->n_errors += priority == LOG_ERR;
        said->n_warnings += priority == LOG_WARNING;
        said->size += (size_t) snprintf(said->text + said->size, sizeof(said->text) - said->size, "%s%s: %s",
                said->size > 0 ? "\n" : "", priority == LOG_ERR ? "error" : "warning", message);
        assert_true(said->size < sizeof(said->text));
}

static inline struct said *new_said(void **state) {
        struct said *said = *state;

        *said = (struct said){};
        return said;
}

static inline int setup(void **state) {
        *state = malloc(sizeof(struct said));
        return *state ? 0 : -1;
}

static inline int teardown(void **state) {
        free(*state);
        return 0;
}

/* Load with the text of scached.conf and, if any, of main.cf. */
static inline int load_texts(
        const char *own, const char *main_text, struct said *said, struct settings **ret) {
        struct settings_text main_cf = { "main.cf", main_text, main_text ? strlen(main_text) : 0 };
        struct settings_text scached_conf = { "scached.conf", own, own ? strlen(own) : 0 };
        struct settings_request request = { .process_id = 4711 };

        return settings_load_texts(&request, main_text ? &main_cf : NULL, own ? &scached_conf : NULL,
                said ? hear : NULL, said, ret);
}

static inline int load_options(
        size_t n, const char *const *options, struct said *said, struct settings **ret) {
        struct settings_request request = { .overrides = options, .n_overrides = n, .process_id = 4711 };

        return settings_load_texts(&request, NULL, NULL, said ? hear : NULL, said, ret);
}

static inline const struct settings_row *row_find(const struct settings *settings, const char *name) {
        for (size_t i = 0; i < settings->n_rows; i++)
                if (strcmp(settings->rows[i].name, name) == 0)
                        return &settings->rows[i];

        fail_msg("no row for %s", name);
        return NULL;
}

static inline void assert_row(
        const struct settings *settings, const char *name, const char *value, const char *source) {
        const struct settings_row *row = row_find(settings, name);

        assert_string_equal(row->value, value);
        assert_string_equal(row->source, source);
}
