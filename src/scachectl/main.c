#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "scachectl/help.h"

static const struct command *const commands[] = {
        &command_status,
        &command_list,
        &command_flush,
        &command_metrics,
        &command_watch,
        &command_save_endp,
        &command_save_dest,
        &command_find_endp,
        &command_find_dest,
        &command_postfix,
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

/* What the command line says. */
struct line {
        bool wants_help;
        bool wants_version;
        unsigned given;            /* options, as bits */
        char *values[_OPTION_MAX]; /* of those that have one */
};

/* Take the options out of the arguments. Values are looked at later, when the command is known that they are for. */
static int read_line(struct line *line, int argc, char *argv[]) {
        struct option table[_OPTION_MAX + 2] = {
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, 'V' },
        };
        int c;

        for (int id = 1; id < _OPTION_MAX; id++)
                table[id + 1] = (struct option){ option_texts[id].name,
                        option_texts[id].value ? required_argument : no_argument, NULL, id };

        while ((c = getopt_long(argc, argv, "hV", table, NULL)) >= 0)
                if (c == '?')
                        return -EINVAL;
                else if (c == 'h')
                        line->wants_help = true;
                else if (c == 'V')
                        line->wants_version = true;
                else {
                        line->given |= 1u << c;
                        line->values[c] = optarg;
                }
        return 0;
}

static int run(const struct command *command, const struct line *line, int n_arguments, char *arguments[]) {
        struct options options = OPTIONS_INIT;

        for (int id = 1; id < _OPTION_MAX; id++) {
                if ((line->given & 1u << id) == 0)
                        continue;
                if ((command->options & 1u << id) == 0)
                        return help_refer(
                                command, "%s has no option --%s", command->name, option_texts[id].name);
                if (options_set(&options, (enum option_id) id, line->values[id]) < 0)
                        return help_refer(command, "Invalid value \"%s\" for --%s", line->values[id],
                                option_texts[id].name);
        }
        if (n_arguments < command->n_arguments_min || n_arguments > command->n_arguments_max)
                return help_refer_to_usage(command);

        options.arguments = arguments;
        options.n_arguments = n_arguments;
        return command->run(&options);
}

int main(int argc, char *argv[]) {
        const struct command *command = NULL;
        struct line line = {};
        int status = EX_OK;

        if (read_line(&line, argc, argv) < 0)
                return EX_USAGE;
        if (optind < argc && strcmp(argv[optind], "help") == 0) {
                line.wants_help = true;
                optind++;
        }
        if (optind < argc) {
                command = find_command(argv[optind]);
                if (!command)
                        return help_refer(NULL, "Unknown command \"%s\"", argv[optind]);
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
                status = run(command, &line, argc - optind - 1, argv + optind + 1);

        if (fflush(stdout) != 0 && status == EX_OK) {
                fprintf(stderr, "scachectl: Could not write the output: %s.\n", strerror(errno));
                return EX_IOERR;
        }
        return status;
}
