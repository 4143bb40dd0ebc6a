/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* epochs: under which configuration does this agent run? */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/cache.h"
#include "daemon/journal.h"
#include "daemon/loop.h"
#include "epochs/epoch.h"

/* A process of Postfix keeps the configuration that it started with. So each belongs to an epoch: the state of the files that
 * make up the configuration (main.cf, the tables that it names, and the command line, which is what master.cf says), if the
 * process started after they came to be as they are. What it parks is found by agents of the same epoch alone. One that started
 * earlier, or of which this cannot be told, finds nothing, and what it parks is let go of. When the first agent of a newer epoch
 * is seen, what was parked in older ones is drained. */

struct epochs;
struct epoch_inquiry;

/* Make one. Its arguments must outlive it. Returns negative errno. */
int epochs_new(struct epochs **ret, struct loop *loop, struct cache *cache, struct journal *journal);

/* Free. epoch_forget() must have been called for each inquiry that is not answered. */
struct epochs *epochs_free(struct epochs *epochs);

struct epoch_question {
        int fd;                         /* the agent's socket, until the answer or epoch_forget() */
        struct journal_subject subject; /* the agent; its dialect must be static */
        const char *queue;              /* the queue directory in which the listening socket is */
        const char *directories;        /* setting postfix_config_directories */
};

/* Called once with the answer. */
typedef void (*epoch_fn)(void *userdata, struct epoch epoch);

/* Ask in which epoch an agent runs. The answer comes in a later round, if the file system gives one. Returns -ENOMEM, or another
 * negative errno if there is no thread to ask in, or too many ask. */
int epoch_ask(struct epochs *epochs, const struct epoch_question *question, epoch_fn fn, void *userdata,
        struct epoch_inquiry **ret);

/* Wait no longer for an answer; if that is because it is LATE, the journal says so. */
void epoch_forget(struct epoch_inquiry *inquiry, bool late);

/* Drain a part of what was parked in epochs that are over. Returns whether there may be more. */
bool epochs_drain(struct epochs *epochs);
