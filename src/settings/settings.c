/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "settings/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

#include "settings/expand.h"
#include "settings/file.h"
#include "settings/parameter.h"
#include "settings/value.h"

#define PROCESS_NAME "scached"
/* Postfix knows this daemon as connection_cache_service_name = scached. */
#define SERVICE_NAME "scached"
/* The name of Postfix's own cache in its log: tools look for SYSLOG_NAME/scache. */
#define POSTFIX_PROCESS_NAME "scache"

/* The state of a load. */
struct loader {
        const struct settings_request *request;
        const char *config_directory;
        char process_id[sizeof("-9223372036854775808")];
        struct settings_entries entries;
        struct settings_reporter reporter;
        struct settings *settings;

        /* The parameter that is loaded. */
        const struct settings_parameter *parameter;
        struct settings_place place;
        const char *raw; /* its value as written */
        bool warned;     /* about a name in the value that is not set */
};

static const char *read_only_value(const struct loader *loader, const char *name) {
        if (strcmp(name, "config_directory") == 0)
                return loader->config_directory;
        if (strcmp(name, "process_id") == 0)
                return loader->process_id;
        return strcmp(name, "process_name") == 0 ? PROCESS_NAME : SERVICE_NAME;
}

static const char *lookup(void *userdata, struct slice name, bool tested) {
        struct loader *loader = userdata;
        const struct settings_parameter *parameter = settings_parameter_find(name);
        struct settings_entry *entry;

        if (parameter && parameter->kind == SETTINGS_READ_ONLY)
                return read_only_value(loader, parameter->name);

        entry = settings_entries_find(&loader->entries, name);
        if (entry) {
                entry->used = true;
                return entry->value;
        }

        if (parameter)
                return parameter->fallback;

        /* It may be one of the hundreds of Postfix's parameters, whose defaults we do not know. */
        if (!tested && !loader->warned) {
                loader->warned = true;
                settings_report(&loader->reporter, LOG_WARNING, loader->place, loader->parameter->name,
                        loader->raw, "%.*s is not set and counts as empty",
                        (int) MIN(name.size, SETTINGS_NAME_MAX), name.data);
        }
        return NULL;
}

/* Add a row with the value and source of a parameter. */
static int describe(struct loader *loader, const char *text) {
        struct settings *settings = loader->settings;
        const struct settings_parameter *parameter = loader->parameter;
        struct settings_row *row = &settings->rows[settings->n_rows++];
        bool farewell = parameter->kind == SETTINGS_FAREWELL;
        size_t size = strlen(loader->place.path) + sizeof(":4294967295");

        row->name = parameter->name;
        row->fallback = parameter->fallback;
        row->source = malloc(size);
        row->value = malloc((farewell ? settings->farewell_size * 4 : strlen(text) * 2) + 1);
        if (!row->source || !row->value)
                return -ENOMEM;

        (void) snprintf(row->source, size, loader->place.line > 0 ? "%s:%u" : "%s", loader->place.path,
                loader->place.line);
        if (farewell)
                settings_value_escape(settings->farewell, settings->farewell_size, row->value);
        else
                settings_value_quote(text, row->value);
        return 0;
}

static int load_read_only(struct loader *loader) {
        const char *name = loader->parameter->name;

        loader->place = (struct settings_place){ .path = "read-only" };
        if (strcmp(name, "config_directory") == 0)
                loader->place.path = loader->request->config_directory ? "-c" : "default";

        return describe(loader, read_only_value(loader, name));
}

/* Load one parameter. A bad value is reported. Returns 0 or -ENOMEM. */
static int load_parameter(struct loader *loader, const struct settings_parameter *parameter) {
        char text[SETTINGS_VALUE_MAX + 1], problem[SETTINGS_PROBLEM_MAX], expected[SETTINGS_EXPECTED_MAX];
        const struct settings_entry *entry;
        int r;

        loader->parameter = parameter;
        if (parameter->kind == SETTINGS_READ_ONLY)
                return load_read_only(loader);

        entry = settings_entries_find(&loader->entries, slice_of(parameter->name));
        loader->place = entry ? entry->place : (struct settings_place){ .path = "default" };
        loader->raw = entry ? entry->value : parameter->fallback;
        loader->warned = false;

        r = settings_expand(parameter->name, loader->raw, lookup, loader, text, problem);
        if (r < 0) {
                settings_report(&loader->reporter, LOG_ERR, loader->place, parameter->name, loader->raw,
                        "%s", problem);
                return 0;
        }

        r = settings_parameter_set(parameter, text, loader->settings, expected);
        if (r == -ENOMEM)
                return r;
        if (r < 0) {
                /* The mistake may be in a value that this one refers to: report what it expands to. */
                if (strcmp(loader->raw, text) != 0)
                        settings_report(&loader->reporter, LOG_ERR, loader->place, parameter->name,
                                loader->raw, "it expands to \"%.*s\", %s", (int) SETTINGS_NAME_MAX, text,
                                expected);
                else
                        settings_report(&loader->reporter, LOG_ERR, loader->place, parameter->name,
                                loader->raw, "%s", expected);
                return 0;
        }

        return describe(loader, text);
}

static void check_unknown(struct loader *loader, const struct settings_entry *entry) {
        const struct settings_parameter *guess;

        /* A name of the administrator's own is fine if a value refers to it. */
        if (entry->origin == SETTINGS_MAIN_CF || entry->used)
                return;

        guess = settings_parameter_guess(entry->name);
        settings_report(&loader->reporter, LOG_WARNING, entry->place, entry->name, entry->value,
                "unknown parameter%s%s%s", guess ? ", did you mean " : "", guess ? guess->name : "",
                guess ? "?" : "");
}

static void check_read_only(struct loader *loader, const struct settings_entry *entry) {
        if (strcmp(entry->name, "config_directory") != 0)
                settings_report(&loader->reporter, entry->origin == SETTINGS_MAIN_CF ? LOG_WARNING : LOG_ERR,
                        entry->place, entry->name, entry->value, "this parameter is read-only");
        /* In main.cf, config_directory is that of Postfix. */
        else if (entry->origin != SETTINGS_MAIN_CF && strcmp(entry->value, loader->config_directory) != 0)
                settings_report(&loader->reporter, LOG_ERR, entry->place, entry->name, entry->value,
                        "the settings are read from %.256s, use -c to choose another directory",
                        loader->config_directory);
}

/* Report entries that have no effect: unknown, read-only, or overridden in the same file. */
static void check_entries(struct loader *loader) {
        const struct settings_entry *before[SETTINGS_PARAMETERS] = {};

        for (size_t i = 0; i < loader->entries.n; i++) {
                const struct settings_entry *entry = &loader->entries.list[i], **last;
                const struct settings_parameter *parameter = settings_parameter_find(slice_of(entry->name));

                if (!parameter) {
                        check_unknown(loader, entry);
                        continue;
                }
                if (parameter->kind == SETTINGS_READ_ONLY) {
                        check_read_only(loader, entry);
                        continue;
                }

                last = &before[parameter - settings_parameters];
                if (*last && (*last)->origin == entry->origin && entry->origin != SETTINGS_OPTION &&
                        strcmp((*last)->value, entry->value) != 0)
                        settings_report(&loader->reporter, LOG_WARNING, entry->place, entry->name,
                                entry->value, "overrides line %u of the same file", (*last)->place.line);
                *last = entry;
        }
}

/* Report a problem with a value that is valid on its own. */
static void report_row(struct loader *loader, int priority, const char *name, const char *message) {
        for (size_t i = 0; i < loader->settings->n_rows; i++) {
                const struct settings_row *row = &loader->settings->rows[i];

                if (strcmp(row->name, name) == 0)
                        settings_report(&loader->reporter, priority,
                                (struct settings_place){ .path = row->source }, row->name, row->value, "%s",
                                message);
        }
}

/* Check values that depend on one another. A value that was already reported is 0 or empty here, and passes. */
static void check_together(struct loader *loader) {
        struct settings *settings = loader->settings;
        uint64_t largest = SETTINGS_REQUEST_MAX;

        /* Most often a shell or a unit file has removed the backslashes. */
        if (settings->farewell_size > 0 && settings->farewell[settings->farewell_size - 1] != '\n')
                report_row(loader, LOG_WARNING, "connection_cache_farewell",
                        "it does not end in \\n, so the peer will wait for the end of the line");

        if (settings->memory_limit > 0)
                largest = MIN(largest, settings->memory_limit);
        if (settings->request_size_limit == 0)
                settings->request_size_limit = largest;
        if (settings->request_size_limit > largest)
                report_row(loader, LOG_ERR, "request_size_limit",
                        "expected at most connection_cache_memory_limit");
}

/* Fill in the fields that depend on several values. */
static int derive(struct loader *loader) {
        struct settings *settings = loader->settings;
        size_t size = strlen(settings->syslog_name) + sizeof(PROCESS_NAME "/" POSTFIX_PROCESS_NAME);

        settings->config_directory = strdup(loader->config_directory);
        settings->identifier = malloc(size);
        if (!settings->config_directory || !settings->identifier)
                return -ENOMEM;

        (void) snprintf(settings->identifier, size, "%s%s", settings->syslog_name,
                *settings->syslog_name ? "/" POSTFIX_PROCESS_NAME : PROCESS_NAME);
        return 0;
}

static int load(struct loader *loader, const struct settings_text *main_cf,
        const struct settings_text *scached_conf) {
        int r;

        if (main_cf) {
                r = settings_entries_add_file(
                        &loader->entries, SETTINGS_MAIN_CF, main_cf, &loader->reporter);
                if (r < 0)
                        return r;
        }
        if (scached_conf) {
                r = settings_entries_add_file(
                        &loader->entries, SETTINGS_SCACHED_CONF, scached_conf, &loader->reporter);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < loader->request->n_overrides; i++) {
                r = settings_entries_add_option(
                        &loader->entries, loader->request->overrides[i], &loader->reporter);
                if (r < 0)
                        return r;
        }
        r = settings_entries_sort(&loader->entries);
        if (r < 0)
                return r;

        loader->settings->rows = calloc(SETTINGS_PARAMETERS, sizeof(*loader->settings->rows));
        if (!loader->settings->rows)
                return -ENOMEM;
        for (size_t i = 0; i < SETTINGS_PARAMETERS; i++) {
                r = load_parameter(loader, &settings_parameters[i]);
                if (r < 0)
                        return r;
        }
        check_together(loader);
        check_entries(loader);

        return loader->reporter.n_errors > 0 ? -EINVAL : derive(loader);
}

int settings_load_texts(const struct settings_request *request, const struct settings_text *main_cf,
        const struct settings_text *scached_conf, settings_report_fn report, void *userdata,
        struct settings **ret) {
        _cleanup_(settings_freep) struct settings *settings = NULL;
        struct loader loader = { .request = request,
                .reporter = { .report = report, .userdata = userdata } };
        int r;

        settings = calloc(1, sizeof(*settings));
        if (!settings)
                return -ENOMEM;

        loader.settings = settings;
        loader.config_directory =
                request->config_directory ? request->config_directory : SETTINGS_CONFIG_DIRECTORY;
        (void) snprintf(loader.process_id, sizeof(loader.process_id), "%jd", (intmax_t) request->process_id);

        r = load(&loader, main_cf, scached_conf);
        settings_entries_deinit(&loader.entries);
        if (r < 0)
                return r;

        *ret = STEAL(settings);
        return 0;
}

/* A settings file. */
struct file {
        char *path;
        char *data;
        struct settings_text text;
};

static void file_deinit(struct file *file) {
        free(file->path);
        free(file->data);
}

/* Read a file in DIRECTORY. A failure is reported, and returned as a negative errno. */
static int file_init(
        struct file *file, const char *directory, const char *name, struct settings_reporter *reporter) {
        size_t size = strlen(directory) + 1 + strlen(name) + 1;
        int r;

        file->path = malloc(size);
        if (!file->path)
                return -ENOMEM;
        (void) snprintf(file->path, size, "%s/%s", directory, name);

        r = settings_file_read(file->path, &file->data, &file->text.size);
        if (r < 0)
                settings_report(reporter, LOG_ERR, (struct settings_place){ .path = file->path }, NULL, NULL,
                        "cannot read this file: %s",
                        r == -EBADFD ? "neither a file nor a device" : strerror(-r));

        file->text.path = file->path;
        file->text.data = file->data;
        return r;
}

/* The directory of -c must exist: a typing error in its name would otherwise mean defaults for everything. */
static int check_directory(const char *path, struct settings_reporter *reporter) {
        struct stat st;
        int r = 0;

        if (stat(path, &st) < 0)
                r = -errno;
        else if (!S_ISDIR(st.st_mode))
                r = -ENOTDIR;
        if (r < 0)
                settings_report(reporter, LOG_ERR, (struct settings_place){ .path = path }, NULL, NULL,
                        "cannot read settings from this directory: %s", strerror(-r));
        return r;
}

int settings_load(const struct settings_request *request, settings_report_fn report, void *userdata,
        struct settings **ret) {
        const char *directory =
                request->config_directory ? request->config_directory : SETTINGS_CONFIG_DIRECTORY;
        struct settings_reporter reporter = { .report = report, .userdata = userdata };
        _cleanup_(file_deinit) struct file main_cf = {}, scached_conf = {};
        _cleanup_(settings_freep) struct settings *settings = NULL;
        int first, r;

        if (request->config_directory) {
                r = check_directory(directory, &reporter);
                if (r < 0)
                        return r;
        }

        /* Continue after a failure, to report all problems at once. */
        first = file_init(&main_cf, directory, "main.cf", &reporter);
        r = file_init(&scached_conf, directory, "scached.conf", &reporter);
        if (first >= 0)
                first = r;

        r = settings_load_texts(request, main_cf.data ? &main_cf.text : NULL,
                scached_conf.data ? &scached_conf.text : NULL, report, userdata, &settings);
        if (first < 0)
                return first;
        if (r < 0)
                return r;

        *ret = STEAL(settings);
        return 0;
}

void settings_free(struct settings *settings) {
        if (!settings)
                return;

        for (size_t i = 0; i < settings->n_rows; i++) {
                free(settings->rows[i].value);
                free(settings->rows[i].source);
        }
        free(settings->rows);
        free(settings->farewell);
        free(settings->postfix_directories);
        free(settings->syslog_name);
        free(settings->identifier);
        free(settings->config_directory);
        free(settings);
}
