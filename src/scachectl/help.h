/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: help, and the errors that lead to it */
#pragma once

#include "base/cleanup.h"
#include "scachectl/command.h"

/* Print how to use a command. */
void help_put(const struct command *command);

/* Report wrong usage of a command, NULL if it is not known which, and name the help to read. Returns the exit status. */
_printf_(2, 3) int help_refer(const struct command *command, const char *format, ...);

/* The same for wrong arguments: report the usage line of the command. */
int help_refer_to_usage(const struct command *command);
