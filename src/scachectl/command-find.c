/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "scachectl/command.h"
#include "scachectl/service.h"
#include "scachectl/terminal.h"

/* `find-endp` and `find-dest`: run a command with the connection as standard input and output. */

/* The same as the shell's (POSIX, 2.8.2). */
#define EXIT_CANNOT_RUN 126
#define EXIT_NO_COMMAND 127

static int set_variable(const char *name, const char *value) {
        return setenv(name, value ? value : "", true) < 0 ? -errno : 0;
}

/* Become the command. Returns the exit status if that fails. */
static int run(char *const arguments[], int fd) {
        /* First duplicate the descriptor: if it is 0 or 1 itself, dup2(2) would do nothing and leave it close-on-exec. */
        int spare = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);

        if (spare < 0 || dup2(spare, STDIN_FILENO) < 0 || dup2(spare, STDOUT_FILENO) < 0) {
                fprintf(stderr, "scachectl: Could not pass the connection to %s: %s.\n", arguments[0],
                        strerror(errno));
                return EX_OSERR;
        }

        (void) execvp(arguments[0], arguments);
        fprintf(stderr, "scachectl: Could not run %s: %s.\n", arguments[0], strerror(errno));
        return errno == ENOENT ? EXIT_NO_COMMAND : EXIT_CANNOT_RUN;
}

static int explain_miss(const char *label) {
        _cleanup_(freep) char *text = terminal_text(slice_of(label), 256);

        fprintf(stderr, "scachectl: No connection is parked under \"%s\".\n", text ? text : "?");
        return EXIT_MISS;
}

static int find(const struct options *options, bool by_destination) {
        const char *label = options->arguments[0];
        _cleanup_(scache_freep) struct scache *scache = NULL;
        _cleanup_(closep) int fd = -1;
        int r;

        r = service_new(&scache, options);
        if (r >= 0)
                r = by_destination ? scache_find_dest(scache, label, &fd)
                                   : scache_find_endp(scache, label, &fd);
        if (r == -ENOENT)
                return explain_miss(label);
        if (r < 0)
                return command_explain(options->service_path, UNIT_SERVICE, r);

        r = set_variable("SCACHE_PROPERTY", scache_get_property(scache, NULL));
        if (r >= 0)
                r = set_variable(
                        "SCACHE_DESTINATION_PROPERTY", scache_get_destination_property(scache, NULL));
        if (r < 0)
                return command_explain(options->service_path, UNIT_SERVICE, r);

        return run(options->arguments + 1, fd);
}

static int find_endp(const struct options *options) {
        return find(options, false);
}

static int find_dest(const struct options *options) {
        return find(options, true);
}

#define EXIT_STATUS_HELP                                                                 \
        "  That of COMMAND; 1 if no connection is parked there, 126 if COMMAND cannot\n" \
        "  run, 127 if it does not exist, 64 to 77 if scachectl fails: see scachectl(1)."

const struct command command_find_endp = {
        .name = "find-endp",
        .arguments = "LABEL -- COMMAND...",
        .n_arguments_min = 2,
        .n_arguments_max = INT_MAX,
        .options = OPTIONS_AGENT,
        .summary = "run a command on an endpoint's connection",
        .help = "Take a connection of the endpoint LABEL out of the cache and run COMMAND with it\n"
                "as standard input and output. $SCACHE_PROPERTY is the connection's property.",
        .examples = "  scachectl find-endp mx1 -- sh -c 'printf \"QUIT\\r\\n\"; cat >&2'",
        .exit_status = EXIT_STATUS_HELP,
        .run = find_endp,
};

const struct command command_find_dest = {
        .name = "find-dest",
        .arguments = "LABEL -- COMMAND...",
        .n_arguments_min = 2,
        .n_arguments_max = INT_MAX,
        .options = OPTIONS_AGENT,
        .summary = "run a command on a destination's connection",
        .help = "Take a connection of the destination LABEL out of the cache and run COMMAND with\n"
                "it as standard input and output. $SCACHE_PROPERTY is the property of the\n"
                "connection, $SCACHE_DESTINATION_PROPERTY the property of the binding.",
        .examples = "  scachectl find-dest example.org -- sh -c 'printf \"QUIT\\r\\n\"; cat >&2'",
        .exit_status = EXIT_STATUS_HELP,
        .run = find_dest,
};
