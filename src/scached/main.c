/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scached: the command line */

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "base/cleanup.h"
#include "scached/service.h"

static int help(FILE *to) {
        (void) fputs("Usage: scached [-c DIRECTORY] [-o NAME=VALUE]... [-v] [--check]\n"
                     "\n"
                     "Connection cache for mail delivery agents. Its sockets start it:\n"
                     "\n"
                     "  systemctl enable --now scached.socket           agents with libscache\n"
                     "  systemctl enable --now scached-postfix.socket   Postfix\n"
                     "\n"
                     "  -c, --config-directory=DIRECTORY   read main.cf and scached.conf there\n"
                     "                                     (default: " SETTINGS_CONFIG_DIRECTORY ")\n"
                     "  -o, --option=NAME=VALUE            set a parameter, whatever the files contain\n"
                     "  -v, --verbose                      log every exchange, without properties\n"
                     "      --check                        show the settings in effect, and exit\n"
                     "      --help, --version              print this text or the version, and exit\n"
                     "\n"
                     "Exit status: 0 idle or told to exit, 64 wrong command line or no socket,\n"
                     "71 refused by the system, 74 output not written, 78 bad settings.\n"
                     "See scached(8), scached.conf(5), scachectl(1).\n",
                to);
        return to == stdout ? EX_OK : EX_USAGE;
}

/* Print each setting in effect, in the syntax of main.cf. */
static int check(const struct settings *settings) {
        for (size_t i = 0; i < settings->n_rows; i++)
                (void) printf("# %s\n%s = %s\n", settings->rows[i].source, settings->rows[i].name,
                        settings->rows[i].value);

        return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

int main(int argc, char *argv[]) {
        enum {
                OPTION_CHECK = 256,
                OPTION_HELP,
                OPTION_VERSION,
        };
        static const struct option long_options[] = {
                { "config-directory", required_argument, NULL, 'c' },
                { "option", required_argument, NULL, 'o' },
                { "verbose", no_argument, NULL, 'v' },
                { "check", no_argument, NULL, OPTION_CHECK },
                { "help", no_argument, NULL, OPTION_HELP },
                { "version", no_argument, NULL, OPTION_VERSION },
                {},
        };
        _cleanup_(freep) const char **overrides = NULL;
        _cleanup_(journal_freep) struct journal *journal = NULL;
        struct service_options options = {};
        bool verbose = false, check_only = false;
        struct settings *settings;
        int c, r;

        overrides = calloc((size_t) argc, sizeof(*overrides));
        if (!overrides)
                return EX_OSERR;
        options.overrides = overrides;

        opterr = 0;
        for (int at = optind; (c = getopt_long(argc, argv, "+:c:o:v", long_options, NULL)) >= 0; at = optind)
                switch (c) {
                case 'c':
                        options.config_directory = optarg;
                        break;
                case 'o':
                        overrides[options.n_overrides++] = optarg;
                        break;
                case 'v':
                        verbose = true;
                        break;
                case OPTION_CHECK:
                        check_only = true;
                        break;
                case OPTION_HELP:
                        return help(stdout);
                case OPTION_VERSION:
                        (void) puts("scached " SCACHED_VERSION);
                        return EX_OK;
                default:
                        (void) fprintf(stderr, "scached: %s option \"%s\"; see \"scached --help\".\n",
                                c == ':' ? "No value for" : "Invalid", argv[at]);
                        return EX_USAGE;
                }
        if (optind < argc) {
                (void) fprintf(stderr, "scached: Unexpected argument \"%s\"; see \"scached --help\".\n",
                        argv[optind]);
                return EX_USAGE;
        }

        /* We do not exit when the reader of our standard error goes away. */
        (void) signal(SIGPIPE, SIG_IGN);

        r = journal_new(&journal, verbose);
        if (r < 0)
                return EX_OSERR;

        r = service_load_settings(journal, &options, &settings);
        if (r < 0) {
                if (!check_only)
                        service_part(journal, &options);
                return r == -ENOMEM ? EX_OSERR : EX_CONFIG;
        }

        if (check_only) {
                r = check(settings);
                settings_free(settings);
                return r;
        }

        return service_run(journal, &options, settings);
}
