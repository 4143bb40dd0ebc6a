/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/help.h"

#include <stdarg.h>
#include <stdio.h>
#include <sysexits.h>

/* The blank before the arguments, and the arguments. */
#define ARGUMENTS(command) (command)->arguments ? " " : "", (command)->arguments ? (command)->arguments : ""

void help_put(const struct command *command) {
        printf("Usage: scachectl %s [OPTIONS]%s%s\n\n%s\n\nOptions:\n", command->name, ARGUMENTS(command),
                command->help);
        for (int id = 1; id < _OPTION_MAX; id++) {
                const struct option_text *option = &option_texts[id];
                int n;

                if ((command->options & 1u << id) == 0)
                        continue;
                n = printf("  --%s%s%s", option->name, option->value ? "=" : "",
                        option->value ? option->value : "");
                printf("%*s%s\n", 26 - n, "", option->help);
        }
        printf("\nExamples:\n%s\n", command->examples);
        if (command->exit_status)
                printf("\nExit status:\n%s\n", command->exit_status);
        printf("\nSee scachectl(1).\n");
}

int help_refer(const struct command *command, const char *format, ...) {
        va_list ap;

        fputs("scachectl: ", stderr);
        va_start(ap, format);
        vfprintf(stderr, format, ap);
        va_end(ap);
        fprintf(stderr, "; see \"scachectl %s%s--help\".\n", command ? command->name : "",
                command ? " " : "");
        return EX_USAGE;
}

int help_refer_to_usage(const struct command *command) {
        return help_refer(command, "Usage: scachectl %s [OPTIONS]%s%s", command->name, ARGUMENTS(command));
}
