/* settings: name = value, from files in main.cf syntax and from -o */
#pragma once

#include "base/slice.h"
#include "settings/report.h"

/* Bounds of what is read. Text past them is an error that says so, or, in a main.cf, a line passed over. */
#define SETTINGS_FILE_MAX (1024u * 1024u) /* bytes in a file */
#define SETTINGS_LINE_MAX (256u * 1024u)  /* bytes in a line with all its continuation lines */

/* A file's text in memory. */
struct settings_text {
        const char *path; /* how messages call it */
        const char *data;
        size_t size;
};

/* Where an entry comes from, in the order in which they override one another. */
enum settings_origin {
        SETTINGS_MAIN_CF, /* Postfix's file: most names in it are not ours */
        SETTINGS_SCACHED_CONF,
        SETTINGS_OPTION,
};

struct settings_entry {
        const char *name;
        const char *value;
        struct settings_place place;
        enum settings_origin origin;
        bool used; /* somebody looked it up */
};

/* All entries there are. All zero is an empty one. */
struct settings_entries {
        struct settings_entry *list; /* in the order in which they were added */
        size_t n;
        size_t n_allocated;
        struct settings_entry **sorted; /* by name, then as added */
        char **texts;                   /* what names and values point into */
        size_t n_texts;
};

/* Add what a file says. What is not "name = value" is an error, in a main.cf a warning. file->path is kept, the
 * text is not. Returns 0 or -ENOMEM. */
int settings_entries_add_file(struct settings_entries *entries, enum settings_origin origin,
        const struct settings_text *file, struct settings_reporter *reporter);

/* Add one "name=value" of -o. What is not that is an error. Returns 0 or -ENOMEM. */
int settings_entries_add_option(
        struct settings_entries *entries, const char *option, struct settings_reporter *reporter);

/* To be called once, after the last was added and before the first is looked for. Returns 0 or -ENOMEM. */
int settings_entries_sort(struct settings_entries *entries);

/* The last entry that was added under a name, or NULL. */
struct settings_entry *settings_entries_find(const struct settings_entries *entries, struct slice name);

/* Free what the entries hold. */
void settings_entries_deinit(struct settings_entries *entries);

/* Read a file. The text in *ret_data belongs to the caller; a file that does not exist yields NULL and 0 bytes. One
 * that is longer than SETTINGS_FILE_MAX is cut one byte behind that. Returns 0, -ENOMEM, -EBADFD for what is neither a
 * file nor a device, or the negative errno of open(2), fstat(2) or read(2). */
int settings_file_read(const char *path, char **ret_data, size_t *ret_size);
