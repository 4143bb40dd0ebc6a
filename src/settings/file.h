/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settings: name = value, from files in main.cf syntax and from -o */
#pragma once

#include "base/slice.h"
#include "settings/report.h"

/* The limits of what is read. Beyond them it is an error; in a main.cf, the line is ignored with a warning. */
#define SETTINGS_FILE_MAX (1024u * 1024u) /* bytes in a file */
#define SETTINGS_LINE_MAX (256u * 1024u)  /* bytes in a line with all its continuation lines */

/* A file's text in memory. */
struct settings_text {
        const char *path; /* its name in messages */
        const char *data;
        size_t size;
};

/* The origin of an entry. A later one overrides an earlier one. */
enum settings_origin {
        SETTINGS_MAIN_CF, /* may be Postfix's: most names in it are not ours */
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

/* All entries. All zero is an empty set. */
struct settings_entries {
        struct settings_entry *list; /* in the order in which they were added */
        size_t n;
        size_t n_allocated;
        struct settings_entry **sorted; /* by name, then as added */
        char **texts;                   /* the memory of names and values */
        size_t n_texts;
};

/* Add the entries of a file. A line that is not "name = value" is an error, in a main.cf a warning. file->path must stay
 * valid, the text need not. Returns 0 or -ENOMEM. */
int settings_entries_add_file(struct settings_entries *entries, enum settings_origin origin,
        const struct settings_text *file, struct settings_reporter *reporter);

/* Add one "name=value" of -o; anything else is an error. Returns 0 or -ENOMEM. */
int settings_entries_add_option(
        struct settings_entries *entries, const char *option, struct settings_reporter *reporter);

/* Call this once, after the last entry was added and before the first lookup. Returns 0 or -ENOMEM. */
int settings_entries_sort(struct settings_entries *entries);

/* Return the last entry that was added under a name, or NULL. */
struct settings_entry *settings_entries_find(const struct settings_entries *entries, struct slice name);

/* Free the memory of all entries. */
void settings_entries_deinit(struct settings_entries *entries);

/* Read a file. The caller owns the text in *ret_data; a file that does not exist gives NULL and 0 bytes. A file that is longer
 * than SETTINGS_FILE_MAX is cut one byte after that. Returns 0, -ENOMEM, -EBADFD if it is neither a file nor a device, or
 * the negative errno of open(2), fstat(2) or read(2). */
int settings_file_read(const char *path, char **ret_data, size_t *ret_size);
