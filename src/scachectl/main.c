/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "scachectl/help.h"

static const struct command *const commands[] = {
        &command_status,
        &command_list,
        &command_flush,
        &command_top,
        &command_metrics,
        &command_watch,
        &command_save_endp,
        &command_save_dest,
        &command_find_endp,
        &command_find_dest,
        &command_postfix,
        &command_fleet,
};

static const struct command *find_command(const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(commands); i++)
                if (strcmp(commands[i]->name, name) == 0)
                        return commands[i];

        return NULL;
}

static void put_overview(void) {
        printf("Usage: scachectl COMMAND [OPTIONS]\n\nCommands:\n");
        for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
                const char *arguments = commands[i]->arguments ? commands[i]->arguments : "";
                int n = printf("  %s %s", commands[i]->name, arguments);

                printf("%*s%s\n", 34 - n, "", commands[i]->summary);
        }
        printf("\n\"scachectl COMMAND --help\" shows the options of a command, with examples;\n"
               "\"scachectl --version\" shows the version. See scachectl(1).\n");
}

/* getopt_long(3) returns WORD for a word that is no option, and LONG + its number for a long option. */
#define WORD 1
#define LONG 256

/* The command line. */
struct line {
        bool wants_help;
        bool wants_version;
        unsigned given;            /* options, as bits */
        enum option_id repeated;   /* an option that was given twice, or 0 */
        char *values[_OPTION_MAX]; /* of the options that have one */
        char **words;              /* the command and its arguments */
        int n_words;
};

/* Return whether the last word is the program that the command is to run: later options belong to that program. */
static bool begins_program(const struct line *line) {
        const struct command *command = find_command(line->words[0]);

        return command && command->n_arguments_max == INT_MAX &&
                line->n_words - 1 == command->n_arguments_min;
}

/* Separate the options from the words. Values are read later, when the command is known. */
static int read_line(struct line *line, int argc, char *argv[]) {
        struct option table[_OPTION_MAX + 2] = {
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, 'V' },
        };
        int c;

        for (int id = 1; id < _OPTION_MAX; id++)
                table[id + 1] = (struct option){ option_texts[id].name,
                        option_texts[id].value ? required_argument : no_argument, NULL, LONG + id };

        opterr = 0;
        for (int at = optind; (c = getopt_long(argc, argv, "-:hV", table, NULL)) >= 0; at = optind)
                if (c == '?' || c == ':')
                        return help_refer(
                                NULL, "%s option \"%s\"", c == ':' ? "No value for" : "Invalid", argv[at]);
                else if (c == 'h')
                        line->wants_help = true;
                else if (c == 'V')
                        line->wants_version = true;
                else if (c == WORD) {
                        line->words[line->n_words++] = optarg;
                        if (begins_program(line))
                                break;
                } else {
                        enum option_id id = (enum option_id)(c - LONG);

                        if ((line->given & 1u << id) != 0)
                                line->repeated = id;
                        line->given |= 1u << id;
                        line->values[id] = optarg;
                }

        while (optind < argc)
                line->words[line->n_words++] = argv[optind++];
        return EX_OK;
}

/* Refuse options that would have no effect: those that the command does not take, and those that another one overrides. */
static int check_options(const struct command *command, const struct line *line) {
        static const enum option_id conflicts[][2] = {
                { OPTION_CONTROL, OPTION_SOCKET },
                { OPTION_NATIVE, OPTION_SOCKET },
                { OPTION_JSON, OPTION_FORMAT },
        };

        for (int id = 1; id < _OPTION_MAX; id++)
                if ((line->given & ~command->options & 1u << id) != 0)
                        return help_refer(
                                command, "%s has no option --%s", command->name, option_texts[id].name);

        if (line->repeated)
                return help_refer(command, "Give --%s only once", option_texts[line->repeated].name);

        for (size_t i = 0; i < ELEMENTSOF(conflicts); i++) {
                enum option_id one = conflicts[i][0], other = conflicts[i][1];

                if ((line->given & 1u << one) != 0 && (line->given & 1u << other) != 0)
                        return help_refer(command, "Give either --%s or --%s", option_texts[one].name,
                                option_texts[other].name);
        }

        return EX_OK;
}

static int run(const struct command *command, const struct line *line, int n_arguments, char *arguments[]) {
        struct options options = OPTIONS_INIT;
        int r;

        r = check_options(command, line);
        if (r != EX_OK)
                return r;
        for (int id = 1; id < _OPTION_MAX; id++)
                if ((line->given & 1u << id) != 0 &&
                        options_set(&options, (enum option_id) id, line->values[id]) < 0)
                        return help_refer(command, "Invalid value \"%s\" for --%s", line->values[id],
                                option_texts[id].name);
        if (n_arguments < command->n_arguments_min || n_arguments > command->n_arguments_max)
                return help_refer_to_usage(command);

        options.arguments = arguments;
        options.n_arguments = n_arguments;
        return command->run(&options);
}

int main(int argc, char *argv[]) {
        _cleanup_(freep) char **words = NULL;
        const struct command *command = NULL;
        struct line line = {};
        int n_words, status;

        words = line.words = calloc((size_t) argc + 1, sizeof(*words));
        if (!words)
                return EX_OSERR;
        status = read_line(&line, argc, argv);
        if (status != EX_OK)
                return status;

        n_words = line.n_words;
        if (n_words > 0 && strcmp(words[0], "help") == 0) {
                if (n_words > 2)
                        return help_refer(NULL, "Usage: scachectl help [COMMAND]");
                line.wants_help = true;
                line.words++;
                n_words--;
        }
        if (n_words > 0) {
                command = find_command(line.words[0]);
                if (!command)
                        return help_refer(NULL, "Unknown command \"%s\"", line.words[0]);
        }

        if (line.wants_version)
                printf("scachectl " SCACHED_VERSION "\n");
        else if (line.wants_help && command)
                help_put(command);
        else if (line.wants_help)
                put_overview();
        else if (!command)
                return help_refer(NULL, "No command given");
        else
                status = run(command, &line, n_words - 1, line.words + 1);

        if (fflush(stdout) != 0 && status == EX_OK) {
                fprintf(stderr, "scachectl: Could not write the output: %s.\n", strerror(errno));
                return EX_IOERR;
        }
        return status;
}
