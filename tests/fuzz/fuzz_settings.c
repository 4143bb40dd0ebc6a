/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The settings: a main.cf, a scached.conf and one -o, in this order, with the byte 0x1e between them. Whatever they
 * say, the settings are within their bounds or there is an error, and what --check would show means the same again. */

#include <errno.h>
#include <string.h>
#include <syslog.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "fuzz.h"
#include "settings/file.h"
#include "settings/settings.h"
#include "settings/value.h"

#define SEPARATOR 0x1e

struct said {
        unsigned n;
        unsigned n_errors;
};

static void hear(void *userdata, int priority, const char *message) {
        struct said *said = userdata;

        CHECK(priority == LOG_ERR || priority == LOG_WARNING);
        CHECK(*message);
        for (; *message; message++)
                CHECK(*message >= ' ' && *message <= '~');

        said->n++;
        said->n_errors += priority == LOG_ERR;
}

static void check_time(uint64_t usec, uint64_t minimum) {
        CHECK(usec % USEC_PER_SEC == 0);
        CHECK(usec >= minimum && usec <= SETTINGS_TIME_MAX_SEC * USEC_PER_SEC);
}

static void check_bounds(const struct settings *settings) {
        check_time(settings->ttl_limit_us, USEC_PER_SEC);
        check_time(settings->status_update_time_us, USEC_PER_SEC);
        check_time(settings->max_idle_us, 0);
        check_time(settings->ipc_timeout_us, USEC_PER_SEC);
        check_time(settings->daemon_timeout_us, USEC_PER_SEC);
        CHECK(settings->connection_limit <= SETTINGS_COUNT_MAX);
        CHECK(settings->agent_limit <= SETTINGS_COUNT_MAX);
        CHECK(settings->memory_limit == 0 ||
                (settings->memory_limit >= SETTINGS_MEMORY_MIN &&
                        settings->memory_limit <= SETTINGS_MEMORY_MAX));
        CHECK(settings->request_size_limit >= SETTINGS_REQUEST_MIN);
        CHECK(settings->request_size_limit <= SETTINGS_REQUEST_MAX);
        CHECK(settings->memory_limit == 0 || settings->request_size_limit <= settings->memory_limit);
        CHECK(settings->farewell_size <= SETTINGS_FAREWELL_MAX);
        CHECK(strlen(settings->farewell) == settings->farewell_size);
        CHECK(strlen(settings->syslog_name) <= SETTINGS_NAME_MAX);
        CHECK(strstr(settings->identifier, *settings->syslog_name ? settings->syslog_name : "scached") ==
                settings->identifier);
        CHECK(!strpbrk(settings->identifier, " \t\r\n"));
}

/* Load again what the rows say. */
static void check_rows(const struct settings *settings, const struct settings_request *request) {
        const struct settings_request plain = { .process_id = request->process_id };
        _cleanup_(settings_freep) struct settings *again = NULL;
        struct settings_text text = { .path = "rows" };
        struct said said = {};
        char *data = NULL;
        FILE *file;

        file = open_memstream(&data, &text.size);
        CHECK(file);
        for (size_t i = 0; i < settings->n_rows; i++)
                if (settings->rows[i].fallback)
                        fprintf(file, "%s = %s\n", settings->rows[i].name, settings->rows[i].value);
        CHECK(fclose(file) == 0);
        text.data = data;

        CHECK(settings_load_texts(&plain, NULL, &text, hear, &said, &again) == 0);
        CHECK(again->n_rows == settings->n_rows);
        for (size_t i = 0; i < settings->n_rows; i++)
                CHECK(strcmp(again->rows[i].value, settings->rows[i].value) == 0);
        CHECK(again->farewell_size == settings->farewell_size);
        CHECK(memcmp(again->farewell, settings->farewell, settings->farewell_size) == 0);
        free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_(settings_freep) struct settings *settings = NULL;
        struct settings_text texts[3] = { { .path = "main.cf" }, { .path = "scached.conf" },
                { .path = "-o" } };
        struct settings_request request = { .process_id = 1 };
        struct said said = {};
        const char *option;
        char *copies[3];
        int r;

        /* Copies just as large as they are, so that a sanitizer sees a read past their end. */
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                const uint8_t *end = i < 2 && size > 0 ? memchr(data, SEPARATOR, size) : NULL;
                size_t n = end ? (size_t) (end - data) : size;

                copies[i] = malloc(n + (i == 2));
                CHECK(copies[i] || n == 0);
                if (n > 0)
                        memcpy(copies[i], data, n);
                texts[i].data = copies[i];
                texts[i].size = n;
                data += n + (end != NULL);
                size -= n + (end != NULL);
        }
        copies[2][texts[2].size] = 0;
        option = copies[2];
        if (*option) {
                request.overrides = &option;
                request.n_overrides = 1;
        }

        r = settings_load_texts(&request, &texts[0], &texts[1], hear, &said, &settings);
        CHECK(r == 0 || r == -EINVAL);
        CHECK((r == 0) == (settings != NULL));
        CHECK(said.n <= SETTINGS_REPORTS_MAX);
        if (r == 0) {
                CHECK(said.n_errors == 0);
                check_bounds(settings);
                check_rows(settings, &request);
        } else {
                CHECK(said.n_errors > 0 || said.n == SETTINGS_REPORTS_MAX);
        }

        for (size_t i = 0; i < ELEMENTSOF(copies); i++)
                free(copies[i]);
        return 0;
}
