/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* epochs: finds out of one process in which epoch it runs; makes every call that may wait for a file */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/printable.h"
#include "epochs/configuration.h"

struct examination {
        /* Asked. */
        pid_t pid;
        const char *queue;       /* the queue directory in which the agent's socket is */
        const char *directories; /* the configuration directories to look in */

        /* Answered: 0, or negative errno and the problem in words. */
        int error;
        char problem[CONFIGURATION_PROBLEM_MAX + 128];
        uint64_t id;
        uint64_t started_us;
        bool is_old; /* the process may have started before the files were as they are now */
        struct printable service, directory; /* for people */
};

struct examiner;

/* Returns -ENOMEM. */
int examiner_new(struct examiner **ret);
struct examiner *examiner_free(struct examiner *examiner);

/* Answer. */
void examiner_examine(struct examiner *examiner, struct examination *examination);
