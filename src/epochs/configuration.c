/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "epochs/configuration.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "settings/expand.h"
#include "settings/file.h"

/* Stands for the value of a name that is not set: we do not know Postfix's default. */
#define UNKNOWN "\1"

/* Types of tables whose files have endings after the name of the table, and these endings. */
static const struct {
        struct slice type;
        const char *endings[2];
} indexed[] = {
        { SLICE_INIT("hash"), { ".db" } },
        { SLICE_INIT("btree"), { ".db" } },
        { SLICE_INIT("lmdb"), { ".lmdb" } },
        { SLICE_INIT("cdb"), { ".cdb" } },
        { SLICE_INIT("dbm"), { ".dir", ".pag" } },
        { SLICE_INIT("sdbm"), { ".dir", ".pag" } },
};

/* Types of tables whose file has the name of the table. */
static const struct slice plain[] = {
        SLICE_INIT("texthash"),
        SLICE_INIT("regexp"),
        SLICE_INIT("pcre"),
        SLICE_INIT("cidr"),
};

/* Files that Postfix itself writes at any time. */
static const struct slice caches[] = {
        SLICE_INIT("_tls_session_cache_database"),
        SLICE_INIT("_sasl_auth_cache_name"),
};

struct reader {
        const struct configuration *configuration;
        struct settings_entries entries;
        struct configuration_files *files;
        char *problem;
};

static bool begins(struct slice text, struct slice with) {
        return text.size >= with.size && memcmp(text.data, with.data, with.size) == 0;
}

static bool ends(struct slice text, struct slice with) {
        return text.size >= with.size &&
                memcmp(text.data + text.size - with.size, with.data, with.size) == 0;
}

/* Take the next argument off a command line; false at its end. */
static bool next_argument(struct slice *command, struct slice *ret) {
        const char *end = command->size > 0 ? memchr(command->data, '\0', command->size) : NULL;

        if (!end)
                return false;

        *ret = (struct slice){ command->data, (size_t) (end - command->data) };
        command->data += ret->size + 1;
        command->size -= ret->size + 1;
        return true;
}

/* Take an option and its value off a command line, "-nNAME" or "-n" "NAME". If the next argument is something else, take that
 * off and return false. */
static bool next_option(struct slice *command, const char *option, struct slice *ret) {
        struct slice argument;

        if (!next_argument(command, &argument) || !begins(argument, slice_of(option)))
                return false;

        if (argument.size > strlen(option)) {
                *ret = (struct slice){ argument.data + strlen(option), argument.size - strlen(option) };
                return true;
        }
        return next_argument(command, ret);
}

struct slice configuration_service(struct slice command) {
        struct slice name = {}, value;
        const char *slash;

        if (!next_argument(&command, &name))
                return name;
        slash = name.size > 0 ? memrchr(name.data, '/', name.size) : NULL;
        if (slash)
                name = (struct slice){ slash + 1, (size_t) (name.data + name.size - slash - 1) };

        /* Without -n, the service has the name of the program. */
        while (command.size > 0)
                if (next_option(&command, "-n", &value))
                        return value;
        return name;
}

static int read_entries(struct reader *reader) {
        const struct configuration *configuration = reader->configuration;
        const struct settings_text text = { "main.cf", configuration->main_cf.data,
                configuration->main_cf.size };
        struct settings_reporter reporter = {};
        struct slice command = configuration->command, value;
        int r;

        r = settings_entries_add_file(&reader->entries, SETTINGS_MAIN_CF, &text, &reporter);
        while (r >= 0 && command.size > 0)
                if (next_option(&command, "-o", &value))
                        r = settings_entries_add_option(&reader->entries, value.data, &reporter);
        if (r >= 0)
                r = settings_entries_sort(&reader->entries);
        return r;
}

static const char *lookup(void *userdata, struct slice name, bool tested) {
        const struct reader *reader = userdata;
        const struct settings_entry *entry;

        if (slice_equal(name, SLICE("config_directory")))
                return reader->configuration->directory;

        entry = settings_entries_find(&reader->entries, name);
        if (entry)
                return entry->value;
        if (slice_equal(name, SLICE("queue_directory")))
                return CONFIGURATION_QUEUE;
        return tested ? NULL : UNKNOWN;
}

static int add_path(struct reader *reader, struct slice path, const char *ending) {
        struct configuration_files *files = reader->files;
        const char *queue = "", *slash = "";
        size_t size;
        char *text;

        if (*path.data != '/') {
                queue = reader->configuration->queue;
                slash = "/";
        }
        size = strlen(queue) + strlen(slash) + path.size + strlen(ending) + 1;
        if (size > CONFIGURATION_PATH_MAX)
                return -EINVAL;
        text = malloc(size);
        if (!text)
                return -ENOMEM;
        (void) snprintf(text, size, "%s%s%.*s%s", queue, slash, (int) path.size, path.data, ending);

        for (size_t i = 0; i < files->n; i++)
                if (strcmp(files->paths[i], text) == 0) {
                        free(text);
                        return 0;
                }
        if (files->n == CONFIGURATION_FILES_MAX) {
                free(text);
                return -EINVAL;
        }
        files->paths[files->n++] = text;
        return 0;
}

/* Add the files of a table. If its type is unknown, add the files that it would have with any type. */
static int add_table(struct reader *reader, struct slice type, struct slice path) {
        bool is_known = type.size > 0 && !memchr(type.data, *UNKNOWN, type.size), is_indexed = false;
        int r = 0;

        for (size_t i = 0; i < ELEMENTSOF(indexed); i++) {
                if (is_known && !slice_equal(type, indexed[i].type))
                        continue;
                is_indexed = is_known;
                for (size_t j = 0; r >= 0 && j < ELEMENTSOF(indexed[i].endings) && indexed[i].endings[j];
                        j++)
                        r = add_path(reader, path, indexed[i].endings[j]);
        }
        if (r >= 0 && !is_indexed)
                r = add_path(reader, path, "");
        return r;
}

static bool is_file_type(struct slice type) {
        for (size_t i = 0; i < ELEMENTSOF(indexed); i++)
                if (slice_equal(type, indexed[i].type))
                        return true;
        for (size_t i = 0; i < ELEMENTSOF(plain); i++)
                if (slice_equal(type, plain[i]))
                        return true;
        return false;
}

/* Add the file or table that a word of a value names: "/path", "type:/path", "proxy:type:/path", "type:path". Most words name no file. */
static int add_word(struct reader *reader, struct slice word) {
        struct slice path = word, type = {};
        const char *colon;
        bool is_typed = false;

        /* Types come before the path; the last one counts. */
        while (path.size > 0 && *path.data != '/' && (colon = memchr(path.data, ':', path.size))) {
                type = (struct slice){ path.data, (size_t) (colon - path.data) };
                path.size -= type.size + 1;
                path.data = colon + 1;
                is_typed = true;
                if (is_file_type(type))
                        break;
        }

        if (path.size == 0)
                return 0;
        if (*path.data == '/') {
                if (path.size > 1 && path.data[1] == '/')
                        return 0; /* a URL */
        } else if (!is_file_type(type) && !(is_typed && *path.data == *UNKNOWN))
                return 0;
        if (memchr(path.data, *UNKNOWN, path.size))
                return -EINVAL;

        return is_typed ? add_table(reader, type, path) : add_path(reader, path, "");
}

static bool is_between(char c) {
        return c == ' ' || c == ',' || c == '{' || c == '}' || (c >= '\t' && c <= '\r');
}

static int add_words(struct reader *reader, struct slice value) {
        int r = 0;

        while (r >= 0 && value.size > 0) {
                size_t n = 0;

                while (n < value.size && !is_between(value.data[n]))
                        n++;
                if (n > 0)
                        r = add_word(reader, (struct slice){ value.data, n });
                n += n < value.size;
                value.data += n;
                value.size -= n;
        }
        return r;
}

static bool is_wanted(struct slice name) {
        if (!begins(name, SLICE("smtp_")) && !begins(name, SLICE("lmtp_")))
                return slice_equal(name, SLICE("tls_config_file"));

        for (size_t i = 0; i < ELEMENTSOF(caches); i++)
                if (ends(name, caches[i]))
                        return false;
        return true;
}

static int add_files_of(struct reader *reader, const struct settings_entry *entry) {
        char value[SETTINGS_VALUE_MAX + 1], problem[SETTINGS_PROBLEM_MAX];
        int r;

        r = settings_expand(entry->name, entry->value, lookup, reader, value, problem);
        if (r < 0) {
                (void) snprintf(
                        reader->problem, CONFIGURATION_PROBLEM_MAX, "%.128s: %s", entry->name, problem);
                return r;
        }

        r = add_words(reader, slice_of(value));
        if (r == -EINVAL)
                (void) snprintf(reader->problem, CONFIGURATION_PROBLEM_MAX,
                        "%.128s = %.256s: cannot tell which file this is, or it is one of more than %u",
                        entry->name, entry->value, CONFIGURATION_FILES_MAX);
        return r;
}

int configuration_files(
        const struct configuration *configuration, struct configuration_files *ret, char *problem) {
        struct reader reader = { .configuration = configuration, .files = ret, .problem = problem };
        int r;

        *ret = (struct configuration_files){};
        r = read_entries(&reader);
        for (size_t i = 0; r >= 0 && i < reader.entries.n; i++) {
                const struct settings_entry *entry = &reader.entries.list[i];

                if (is_wanted(slice_of(entry->name)) &&
                        settings_entries_find(&reader.entries, slice_of(entry->name)) == entry)
                        r = add_files_of(&reader, entry);
        }
        settings_entries_deinit(&reader.entries);
        return r;
}

void configuration_files_deinit(struct configuration_files *files) {
        for (size_t i = 0; i < files->n; i++)
                free(files->paths[i]);
        files->n = 0;
}

int configuration_value(
        const struct configuration *configuration, const char *name, const char *fallback, char **ret) {
        char value[SETTINGS_VALUE_MAX + 1], problem[SETTINGS_PROBLEM_MAX];
        struct reader reader = { .configuration = configuration };
        const struct settings_entry *entry;
        int r;

        r = read_entries(&reader);
        if (r >= 0) {
                entry = settings_entries_find(&reader.entries, slice_of(name));
                r = settings_expand(name, entry ? entry->value : fallback, lookup, &reader, value, problem);
        }
        settings_entries_deinit(&reader.entries);
        if (r < 0)
                return r;

        *ret = strdup(value);
        return *ret ? 0 : -ENOMEM;
}
