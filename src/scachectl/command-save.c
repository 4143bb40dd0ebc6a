/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "base/cleanup.h"
#include "libscache/handle.h"
#include "scachectl/command.h"
#include "scachectl/service.h"

/* `save-endp` and `save-dest`. */

static int explain(const struct options *options, int error) {
        if (error == -EREMOTEIO) {
                fprintf(stderr,
                        "scachectl: scached could not save this: see \"journalctl -u scached.service\".\n");
                return EX_UNAVAILABLE;
        }
        return command_explain(options->service_path, UNIT_SERVICE, error);
}

static int save_endp(const struct options *options) {
        _cleanup_(scache_freep) struct scache *scache = NULL;
        struct stat st;
        int r;

        if (fstat(options->fd, &st) < 0 || !S_ISSOCK(st.st_mode)) {
                fprintf(stderr,
                        "scachectl: Descriptor %d is not a socket: pass the connection as standard input, "
                        "or give --fd=N.\n",
                        options->fd);
                return EX_USAGE;
        }

        r = service_new(&scache, options);
        if (r >= 0 && options->farewell) {
                r = scache_connect(scache);
                if (r >= 0 && !scache->can_farewell) {
                        fprintf(stderr,
                                "scachectl: The service on %s takes no farewell: leave --farewell out, or "
                                "use the "
                                "socket of " UNIT_SERVICE ".\n",
                                options->service_path);
                        return EX_USAGE;
                }
        }
        if (r >= 0)
                r = scache_save_endp(scache, options->ttl_s, options->arguments[0], options->property,
                        options->farewell, options->fd);
        return r < 0 ? explain(options, r) : EX_OK;
}

static int save_dest(const struct options *options) {
        _cleanup_(scache_freep) struct scache *scache = NULL;
        int r;

        r = service_new(&scache, options);
        if (r >= 0)
                r = scache_save_dest(scache, options->ttl_s, options->arguments[0], options->property,
                        options->arguments[1]);
        return r < 0 ? explain(options, r) : EX_OK;
}

const struct command command_save_endp = {
        .name = "save-endp",
        .arguments = "LABEL",
        .n_arguments_min = 1,
        .n_arguments_max = 1,
        .options = OPTIONS_SAVE | OPTION(FAREWELL) | OPTION(FD),
        .summary = "park the connection on standard input",
        .help = "Park a connection, by default standard input, under the endpoint LABEL. Only the\n"
                "same user can find it. Before, read everything that the peer has sent: unread\n"
                "bytes make the connection leave the cache at once. Afterwards, send nothing\n"
                "more on it, and close it.",
        .examples = "  scachectl save-endp --farewell='QUIT\\r\\n' mx1 <&3",
        .run = save_endp,
};

const struct command command_save_dest = {
        .name = "save-dest",
        .arguments = "LABEL ENDPOINT",
        .n_arguments_min = 2,
        .n_arguments_max = 2,
        .options = OPTIONS_SAVE,
        .summary = "bind a destination to an endpoint",
        .help = "Bind the destination LABEL to ENDPOINT: a lookup of the destination then finds\n"
                "the connections of the endpoint.",
        .examples = "  scachectl save-dest example.org mx1",
        .run = save_dest,
};
