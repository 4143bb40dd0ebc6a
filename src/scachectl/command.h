/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: the commands, each with its help */
#pragma once

#include "scachectl/options.h"

/* Beyond those of sysexits(3). */
#define EXIT_MISS 1 /* nothing was found */

struct command {
        const char *name;
        const char *arguments; /* as the usage line shows them, NULL if there are none */
        int n_arguments_min;
        int n_arguments_max;
        unsigned options;    /* that it takes, as bits: OPTION() */
        const char *summary; /* a few words, for the list of commands */
        const char *help;    /* sentences, in lines of a terminal */
        const char *examples;
        const char *exit_status; /* NULL if scachectl(1) is enough */

        /* Returns the exit status, and has reported what went wrong. */
        int (*run)(const struct options *options);
};

extern const struct command command_status;
extern const struct command command_list;
extern const struct command command_flush;
extern const struct command command_top;
extern const struct command command_metrics;
extern const struct command command_watch;
extern const struct command command_save_endp;
extern const struct command command_save_dest;
extern const struct command command_find_endp;
extern const struct command command_find_dest;
extern const struct command command_postfix;
extern const struct command command_fleet;

/* Report in one sentence why PATH, the socket of the unit UNIT, could not be used, and what to do about it. ERROR is a
 * negative errno. Returns the exit status. */
int command_explain(const char *path, const char *unit, int error);

#define UNIT_CONTROL "scached-control.socket"
#define UNIT_SERVICE "scached.socket"
