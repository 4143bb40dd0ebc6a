#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "scachectl/command.h"

#define CONTROL_PATH "/run/scached/control.sock"
#define SERVICE_PATH "/run/scached/scached.sock"

/* As long as the service lets a connection live. */
#define TTL_DEFAULT_S INT_MAX

enum choice {
        OPTION_BINDINGS = 1,
        OPTION_CONFIG_DIRECTORY,
        OPTION_CONTROL,
        OPTION_COUNT,
        OPTION_DESTINATION,
        OPTION_ENDPOINT,
        OPTION_FAREWELL,
        OPTION_FD,
        OPTION_INTERVAL,
        OPTION_JSON,
        OPTION_LEGACY,
        OPTION_NATIVE,
        OPTION_PROPERTY,
        OPTION_SOCKET,
        OPTION_TIMEOUT,
        OPTION_TTL,
        OPTION_USER,
};

#define BIT(option) (1u << (option))
#define CONTROL     (BIT(OPTION_CONTROL) | BIT(OPTION_SOCKET) | BIT(OPTION_TIMEOUT) | BIT(OPTION_JSON))
#define SERVICE     (BIT(OPTION_NATIVE) | BIT(OPTION_SOCKET) | BIT(OPTION_TIMEOUT) | BIT(OPTION_LEGACY))
#define SAVE        (SERVICE | BIT(OPTION_TTL) | BIT(OPTION_PROPERTY))
#define FILTER      (BIT(OPTION_USER) | BIT(OPTION_DESTINATION) | BIT(OPTION_ENDPOINT))

static const struct command {
        const char *name;
        int (*fn)(const struct command_options *options);
        unsigned options; /* that it knows */
        int n_arguments_min;
        int n_arguments_max;
        const char *usage;
        const char *help;
} commands[] = {
        { "status", command_status, CONTROL, 0, 0, "", "show the state of the service" },
        { "list", command_list, CONTROL | FILTER | BIT(OPTION_BINDINGS), 0, 0, "",
                "show what is parked, or bound (--bindings)" },
        { "flush", command_flush, CONTROL | FILTER, 0, 1, " [GLOB]",
                "let go of connections, with their farewell" },
        { "metrics", command_metrics, CONTROL, 0, 0, "", "print OpenMetrics text" },
        { "watch", command_watch, CONTROL | BIT(OPTION_INTERVAL) | BIT(OPTION_COUNT), 0, 0, "",
                "show the state again and again" },
        { "save-endp", command_save_endp, SAVE | BIT(OPTION_FAREWELL) | BIT(OPTION_FD), 1, 1, " LABEL",
                "park the connection that is standard input" },
        { "save-dest", command_save_dest, SAVE, 2, 2, " LABEL ENDPOINT",
                "bind a destination to an endpoint" },
        { "find-endp", command_find_endp, SERVICE, 2, INT_MAX, " LABEL -- COMMAND...",
                "run a command on a connection of an endpoint" },
        { "find-dest", command_find_dest, SERVICE, 2, INT_MAX, " LABEL -- COMMAND...",
                "run a command on a connection of a destination" },
        { "postfix", command_postfix, BIT(OPTION_CONFIG_DIRECTORY) | BIT(OPTION_TIMEOUT), 1, 1,
                " enable|disable", "let Postfix use the service, or its own again" },
};

static const struct option_text {
        const char *text;
        const char *help;
} option_texts[] = {
        { "--json", "print JSON" },
        { "--socket=PATH", "the socket to use, of whichever kind" },
        { "--control=PATH", "the control socket (" CONTROL_PATH ")" },
        { "--native=PATH", "the agents' socket (" SERVICE_PATH ")" },
        { "--timeout=SECONDS", "give up after this long (5)" },
        { "--user=USER", "list, flush: only what this user saved" },
        { "--endpoint=GLOB", "list, flush: only what has an endpoint like this" },
        { "--destination=GLOB", "list: its bindings; flush: what they lead to" },
        { "--bindings", "list: bindings rather than connections" },
        { "--interval=SECONDS", "watch: time between two looks (1)" },
        { "--count=N", "watch: looks to take (no end)" },
        { "--ttl=SECONDS", "save: time to live (as long as the service allows)" },
        { "--property=TEXT", "save: what whoever finds it gets to know" },
        { "--farewell=TEXT", "save-endp: last words; \\r and \\n are understood" },
        { "--fd=N", "save-endp: the connection (0, standard input)" },
        { "--config-directory=DIR", "postfix: only the instance with its main.cf there" },
        { "--legacy", "find, save: the service does not greet (Postfix < 3.6)" },
        { "--help, --version", "show this, or the version, and exit" },
};

static int show_help(void) {
        printf("Usage: scachectl [OPTIONS] COMMAND ...\n\nCommands:\n");
        for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
                int n = printf("  %s%s", commands[i].name, commands[i].usage);

                printf("%*s%s\n", 32 - n, "", commands[i].help);
        }
        printf("\nOptions:\n");
        for (size_t i = 0; i < ELEMENTSOF(option_texts); i++)
                printf("  %-22s %s\n", option_texts[i].text, option_texts[i].help);
        printf("\nSee scachectl(1).\n");
        return EX_OK;
}

static _printf_(1, 2) int bad_usage(const char *format, ...) {
        va_list ap;

        fputs("scachectl: ", stderr);
        va_start(ap, format);
        vfprintf(stderr, format, ap);
        va_end(ap);
        fputs("; see \"scachectl --help\".\n", stderr);
        return EX_USAGE;
}

/* Read a number of seconds, with or without a fraction, into µs. */
static int parse_time(const char *text, uint64_t *ret_us) {
        char *end;
        double seconds;

        seconds = strtod(text, &end);
        if (end == text || *end || !(seconds > 0 && seconds <= 1e9))
                return -EINVAL;

        *ret_us = (uint64_t) (seconds * (double) USEC_PER_SEC);
        return 0;
}

static int parse_number(const char *text, unsigned max, unsigned *ret) {
        unsigned long value;
        char *end;

        errno = 0;
        value = strtoul(text, &end, 10);
        if (end == text || *end || errno != 0 || *text == '-' || value > max)
                return -EINVAL;

        *ret = (unsigned) value;
        return 0;
}

static int parse_user(const char *text, unsigned *ret) {
        struct passwd *passwd = getpwnam(text);

        if (!passwd)
                return parse_number(text, UINT_MAX, ret);

        *ret = passwd->pw_uid;
        return 0;
}

/* Lines of mail protocols end in CR LF, which is hard to type: \r, \n and \\ in place. */
static void unescape(char *text) {
        char *to = text;

        for (; *text; text++) {
                if (*text == '\\' && text[1] && strchr("rn\\", text[1])) {
                        text++;
                        *to++ = *text == 'r' ? '\r' : *text == 'n' ? '\n' : '\\';
                } else
                        *to++ = *text;
        }
        *to = 0;
}

static int parse_option(struct command_options *options, enum choice choice, char *value) {
        unsigned number;
        int r = 0;

        switch (choice) {
        case OPTION_BINDINGS:
                options->bindings = true;
                break;
        case OPTION_CONFIG_DIRECTORY:
                options->config_directory = value;
                break;
        case OPTION_CONTROL:
                options->control_path = value;
                break;
        case OPTION_COUNT:
                r = parse_number(value, UINT_MAX, &options->count);
                break;
        case OPTION_DESTINATION:
                options->destination = value;
                break;
        case OPTION_ENDPOINT:
                options->endpoint = value;
                break;
        case OPTION_FAREWELL:
                unescape(value);
                options->farewell = value;
                break;
        case OPTION_FD:
                r = parse_number(value, INT_MAX, &number);
                if (r >= 0)
                        options->fd = (int) number;
                break;
        case OPTION_INTERVAL:
                r = parse_time(value, &options->interval_us);
                break;
        case OPTION_JSON:
                options->json = true;
                break;
        case OPTION_LEGACY:
                options->legacy = true;
                break;
        case OPTION_NATIVE:
                options->service_path = value;
                break;
        case OPTION_PROPERTY:
                options->property = value;
                break;
        case OPTION_SOCKET:
                options->control_path = options->service_path = value;
                break;
        case OPTION_TIMEOUT:
                r = parse_time(value, &options->timeout_us);
                break;
        case OPTION_TTL:
                r = parse_number(value, INT_MAX, &options->ttl_s);
                if (options->ttl_s == 0)
                        r = -EINVAL;
                break;
        case OPTION_USER:
                options->has_user = true;
                r = parse_user(value, &options->user);
                break;
        }
        return r;
}

static const struct command *command_find(const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(commands); i++)
                if (strcmp(commands[i].name, name) == 0)
                        return &commands[i];

        return NULL;
}

int main(int argc, char *argv[]) {
        static const struct option table[] = {
                { "bindings", no_argument, NULL, OPTION_BINDINGS },
                { "config-directory", required_argument, NULL, OPTION_CONFIG_DIRECTORY },
                { "control", required_argument, NULL, OPTION_CONTROL },
                { "count", required_argument, NULL, OPTION_COUNT },
                { "destination", required_argument, NULL, OPTION_DESTINATION },
                { "endpoint", required_argument, NULL, OPTION_ENDPOINT },
                { "farewell", required_argument, NULL, OPTION_FAREWELL },
                { "fd", required_argument, NULL, OPTION_FD },
                { "help", no_argument, NULL, 'h' },
                { "interval", required_argument, NULL, OPTION_INTERVAL },
                { "json", no_argument, NULL, OPTION_JSON },
                { "legacy", no_argument, NULL, OPTION_LEGACY },
                { "native", required_argument, NULL, OPTION_NATIVE },
                { "property", required_argument, NULL, OPTION_PROPERTY },
                { "socket", required_argument, NULL, OPTION_SOCKET },
                { "timeout", required_argument, NULL, OPTION_TIMEOUT },
                { "ttl", required_argument, NULL, OPTION_TTL },
                { "user", required_argument, NULL, OPTION_USER },
                { "version", no_argument, NULL, 'V' },
                {},
        };
        struct command_options options = {
                .control_path = CONTROL_PATH,
                .service_path = SERVICE_PATH,
                .ttl_s = TTL_DEFAULT_S,
                .timeout_us = 5 * USEC_PER_SEC,
                .interval_us = USEC_PER_SEC,
        };
        const struct command *command;
        unsigned given = 0;
        int c, status;

        while ((c = getopt_long(argc, argv, "hV", table, NULL)) >= 0) {
                if (c == 'h')
                        return show_help();
                if (c == 'V') {
                        printf("scachectl " SCACHED_VERSION "\n");
                        return EX_OK;
                }
                if (c == '?')
                        return EX_USAGE;
                if (parse_option(&options, (enum choice) c, optarg) < 0)
                        return bad_usage("\"%s\" makes no sense to this option", optarg);
                given |= BIT(c);
        }

        if (optind >= argc)
                return bad_usage("What is to be done was not said");
        command = command_find(argv[optind]);
        if (!command)
                return bad_usage("There is no command \"%s\"", argv[optind]);
        for (size_t i = 0; table[i].name; i++)
                if (table[i].val < 'V' && (given & BIT(table[i].val)) != 0 &&
                        (command->options & BIT(table[i].val)) == 0)
                        return bad_usage("%s has no option --%s", command->name, table[i].name);

        options.arguments = argv + optind + 1;
        options.n_arguments = argc - optind - 1;
        if (options.n_arguments < command->n_arguments_min || options.n_arguments > command->n_arguments_max)
                return bad_usage("Usage: scachectl %s%s", command->name, command->usage);

        status = command->fn(&options);
        if (fflush(stdout) != 0 && status == EX_OK) {
                fprintf(stderr, "scachectl: Could not write the output: %s.\n", strerror(errno));
                return EX_IOERR;
        }
        return status;
}
