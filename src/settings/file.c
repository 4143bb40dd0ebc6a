/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "settings/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

#include "base/cleanup.h"

/* A text that is read. Lines are joined and split in place, because they only get shorter. */
struct reader {
        char *text;
        size_t size;
        size_t at;
        unsigned line; /* number of the last line that was read */
};

static bool is_blank(char c) {
        return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Read one line of the file, without its newline. */
static struct slice read_physical(struct reader *reader) {
        const char *start = reader->text + reader->at;
        const char *newline = memchr(start, '\n', reader->size - reader->at);
        size_t size = newline ? (size_t) (newline - start) : reader->size - reader->at;

        reader->at += size + (newline ? 1 : 0);
        reader->line++;
        return (struct slice){ start, size };
}

static bool is_comment(struct slice line) {
        size_t n = 0;

        while (n < line.size && is_blank(line.data[n]))
                n++;
        return n == line.size || line.data[n] == '#';
}

/* A line continues if the next one begins with a blank. Comments and empty lines between the two do not end it. */
static bool goes_on(const struct reader *reader) {
        return reader->at < reader->size &&
                (is_blank(reader->text[reader->at]) || reader->text[reader->at] == '#');
}

/* Read a line with all its continuation lines, and put a NUL at its end. Returns false at the end of the text. */
static bool read_logical(struct reader *reader, char **ret_line, size_t *ret_size, unsigned *ret_number) {
        struct slice part;
        char *line;
        size_t size;

        do {
                if (reader->at >= reader->size)
                        return false;
                part = read_physical(reader);
        } while (is_comment(part));

        line = reader->text + (part.data - reader->text);
        size = part.size;
        *ret_number = reader->line;

        while (goes_on(reader)) {
                part = read_physical(reader);
                if (!is_comment(part)) {
                        memmove(line + size, part.data, part.size);
                        size += part.size;
                }
        }

        line[size] = '\0';
        *ret_line = line;
        *ret_size = size;
        return true;
}

/* Split "name = value". Returns the problem with it, or NULL. */
static const char *split(char *line, char **ret_name, char **ret_value) {
        char *name = line, *name_end, *value, *end;

        while (is_blank(*name))
                name++;
        if (*name == '\0' || *name == '=')
                return "expected name = value, the name is missing";

        for (name_end = name; *name_end && !is_blank(*name_end) && *name_end != '='; name_end++)
                ;
        for (value = name_end; is_blank(*value); value++)
                ;
        if (*value != '=')
                return "expected name = value, the = is missing";

        for (value++; is_blank(*value); value++)
                ;
        for (end = value + strlen(value); end > value && is_blank(end[-1]); end--)
                ;
        *name_end = '\0';
        *end = '\0';

        *ret_name = name;
        *ret_value = value;
        return NULL;
}

static int add(struct settings_entries *entries, const struct settings_entry *entry) {
        if (entries->n == entries->n_allocated) {
                size_t n = entries->n_allocated ? entries->n_allocated * 2 : 64;
                struct settings_entry *list = reallocarray(entries->list, n, sizeof(*list));

                if (!list)
                        return -ENOMEM;
                entries->list = list;
                entries->n_allocated = n;
        }

        entries->list[entries->n++] = *entry;
        return 0;
}

/* Take a copy of a text that lives as long as the entries. There is room for a NUL at its end. */
static char *keep(struct settings_entries *entries, const char *data, size_t size) {
        char **texts, *text;

        texts = reallocarray(entries->texts, entries->n_texts + 1, sizeof(*texts));
        if (!texts)
                return NULL;
        entries->texts = texts;

        text = malloc(size + 1);
        if (!text)
                return NULL;
        if (size > 0)
                memcpy(text, data, size);
        text[size] = '\0';

        entries->texts[entries->n_texts++] = text;
        return text;
}

int settings_entries_add_file(struct settings_entries *entries, enum settings_origin origin,
        const struct settings_text *file, struct settings_reporter *reporter) {
        /* main.cf is Postfix's file: problems there are only warnings. */
        int priority = origin == SETTINGS_MAIN_CF ? LOG_WARNING : LOG_ERR;
        struct settings_place place = { .path = file->path };
        struct reader reader = {};
        size_t size;
        char *line;

        if (file->size > SETTINGS_FILE_MAX) {
                settings_report(reporter, LOG_ERR, place, NULL, NULL, "expected a file of at most %u bytes",
                        SETTINGS_FILE_MAX);
                return 0;
        }

        reader.size = file->size;
        reader.text = keep(entries, file->data, file->size);
        if (!reader.text)
                return -ENOMEM;

        while (read_logical(&reader, &line, &size, &place.line)) {
                struct settings_entry entry = { .place = place, .origin = origin };
                const char *problem = NULL;
                char *name, *value;
                int r;

                if (size > SETTINGS_LINE_MAX)
                        problem = "this line is too long, with its continuation lines";
                else if (is_blank(*line))
                        problem = "expected name = value, a line that begins with a blank continues the "
                                  "previous one";
                else if (strlen(line) < size)
                        problem = "expected text, this line has a NUL byte";
                else
                        problem = split(line, &name, &value);
                if (problem) {
                        settings_report(reporter, priority, place, line, NULL, "%s", problem);
                        continue;
                }

                entry.name = name;
                entry.value = value;
                r = add(entries, &entry);
                if (r < 0)
                        return r;
        }

        return 0;
}

int settings_entries_add_option(
        struct settings_entries *entries, const char *option, struct settings_reporter *reporter) {
        struct settings_entry entry = { .place = { .path = "-o" }, .origin = SETTINGS_OPTION };
        char *text, *name, *value;
        const char *problem;

        text = keep(entries, option, strlen(option));
        if (!text)
                return -ENOMEM;

        problem = split(text, &name, &value);
        if (problem) {
                settings_report(reporter, LOG_ERR, entry.place, text, NULL, "%s", problem);
                return 0;
        }

        entry.name = name;
        entry.value = value;
        return add(entries, &entry);
}

static int compare_entries(const void *a, const void *b) {
        const struct settings_entry *left = *(struct settings_entry *const *) a;
        const struct settings_entry *right = *(struct settings_entry *const *) b;
        int r = strcmp(left->name, right->name);

        return r != 0 ? r : (left > right) - (left < right);
}

int settings_entries_sort(struct settings_entries *entries) {
        if (entries->n == 0)
                return 0;

        entries->sorted = calloc(entries->n, sizeof(*entries->sorted));
        if (!entries->sorted)
                return -ENOMEM;

        for (size_t i = 0; i < entries->n; i++)
                entries->sorted[i] = &entries->list[i];
        qsort(entries->sorted, entries->n, sizeof(*entries->sorted), compare_entries);
        return 0;
}

struct settings_entry *settings_entries_find(const struct settings_entries *entries, struct slice name) {
        size_t low = 0, high = entries->n;

        /* Find the first entry behind the name. The entry before that has the name, or none has. */
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                const char *other = entries->sorted[middle]->name;
                int r = strncmp(other, name.data, name.size);

                if (r > 0 || (r == 0 && other[name.size] != '\0'))
                        high = middle;
                else
                        low = middle + 1;
        }

        if (low == 0 || !slice_equal(slice_of(entries->sorted[low - 1]->name), name))
                return NULL;
        return entries->sorted[low - 1];
}

void settings_entries_deinit(struct settings_entries *entries) {
        for (size_t i = 0; i < entries->n_texts; i++)
                free(entries->texts[i]);
        free(entries->texts);
        free(entries->sorted);
        free(entries->list);
        *entries = (struct settings_entries){};
}

int settings_file_read(const char *path, char **ret_data, size_t *ret_size) {
        _cleanup_(closep) int fd = -1;
        _cleanup_(freep) char *data = NULL;
        struct stat st;
        size_t size = 0;

        /* O_NONBLOCK: to open a FIFO would wait for a writer. */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0) {
                if (errno != ENOENT)
                        return -errno;
                *ret_data = NULL;
                *ret_size = 0;
                return 0;
        }

        /* A character device is fine: a link to /dev/null is a common way to have an empty file. */
        if (fstat(fd, &st) < 0)
                return -errno;
        if (S_ISDIR(st.st_mode))
                return -EISDIR;
        if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode))
                return -EBADFD;

        data = malloc(SETTINGS_FILE_MAX + 1);
        if (!data)
                return -ENOMEM;

        while (size <= SETTINGS_FILE_MAX) {
                ssize_t n = read(fd, data + size, SETTINGS_FILE_MAX + 1 - size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                size += (size_t) n;
        }

        *ret_data = STEAL(data);
        *ret_size = size;
        return 0;
}
