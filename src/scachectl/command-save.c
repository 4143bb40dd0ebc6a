#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "base/cleanup.h"
#include "libscache/scache.h"
#include "scachectl/command.h"
#include "scachectl/service.h"

/* `save-endp` and `save-dest`. */

static int explain(const struct command_options *options, int error) {
        if (error == -EREMOTEIO) {
                fprintf(stderr,
                        "scachectl: The service could not save it: see \"journalctl -u "
                        "scached.service\".\n");
                return EX_UNAVAILABLE;
        }
        return command_explain(options->service_path, UNIT_SERVICE, error);
}

int command_save_endp(const struct command_options *options) {
        _cleanup_(scache_freep) struct scache *scache = NULL;
        struct stat st;
        int r;

        if (fstat(options->fd, &st) < 0 || !S_ISSOCK(st.st_mode)) {
                fprintf(stderr,
                        "scachectl: Descriptor %d is not a socket: pass the connection as standard input, "
                        "or "
                        "say --fd=N.\n",
                        options->fd);
                return EX_USAGE;
        }

        r = service_new(&scache, options);
        if (r >= 0)
                r = scache_save_endp(scache, options->ttl_s, options->arguments[0], options->property,
                        options->farewell, options->fd);
        return r < 0 ? explain(options, r) : EX_OK;
}

int command_save_dest(const struct command_options *options) {
        _cleanup_(scache_freep) struct scache *scache = NULL;
        int r;

        r = service_new(&scache, options);
        if (r >= 0)
                r = scache_save_dest(scache, options->ttl_s, options->arguments[0], options->property,
                        options->arguments[1]);
        return r < 0 ? explain(options, r) : EX_OK;
}
