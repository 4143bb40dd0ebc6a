/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon: writes lines to the journal, with fields, or to standard error if there is no journal */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/slice.h"
#include "daemon/events.h"

struct journal;

/* The subject of a line. It never has properties of connections. */
struct journal_subject {
        const char *dialect; /* NULL if it is not about an agent */
        pid_t pid;           /* of the agent */
        uid_t uid;
        struct slice label; /* data is NULL if it is not about a label */
};

struct journal_place {
        const char *file;
        int line;
        const char *function;
};

/* Make a journal. If standard error is the journal (JOURNAL_STREAM), lines go there with fields; otherwise they go to
 * standard error as text for people, with "error: " or "warning: " where that applies. Returns -ENOMEM. */
int journal_new(struct journal **ret, bool verbose);
struct journal *journal_free(struct journal *journal);
DEFINE_CLEANUP(struct journal *, journal_free);

/* Set the identifier of the statistics, which is copied, and the facility (LOG_MAIL, ...) of all further lines. Lines other than
 * the statistics have the identifier scached. Returns -ENOMEM; then nothing has changed. */
int journal_set_identity(struct journal *journal, const char *statistics_identifier, int facility);

/* Return whether EVENT_TRACE lines are wanted, so that they are not built in vain. */
bool journal_is_verbose(const struct journal *journal);

/* Write a line; SUBJECT may be NULL. Lines that an agent can cause at will are limited per kind; the next line of that kind
 * says how many were suppressed. */
_cold_ void journal_write(struct journal *journal, enum event event, const struct journal_subject *subject,
        struct journal_place place, const char *format, ...) _printf_(5, 6);

#define journal_say(journal, event, subject, ...)          \
        journal_write((journal), EVENT_##event, (subject), \
                (struct journal_place){ __FILE__, __LINE__, __func__ }, __VA_ARGS__)
