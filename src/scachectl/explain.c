#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "scachectl/command.h"

int command_explain(const char *path, const char *unit, int error) {
        switch (error) {
        case -ECONNREFUSED:
        case -ENOENT:
                fprintf(stderr,
                        "scachectl: Nobody listens on %s: start the service with "
                        "\"systemctl enable --now %s\".\n",
                        path, unit);
                return EX_UNAVAILABLE;
        case -EACCES:
        case -EPERM:
                fprintf(stderr,
                        "scachectl: No permission to connect to %s: be root, or of the group \"scache\".\n",
                        path);
                return EX_NOPERM;
        case -ETIMEDOUT:
                fprintf(stderr,
                        "scachectl: The service did not answer on %s in time: see "
                        "\"systemctl status scached.service\".\n",
                        path);
                return EX_TEMPFAIL;
        case -ECONNRESET:
                fprintf(stderr,
                        "scachectl: The service hung up on %s: see \"journalctl -u scached.service\".\n",
                        path);
                return EX_TEMPFAIL;
        case -EPROTO:
                fprintf(stderr,
                        "scachectl: What listens on %s does not speak the right protocol: is it the socket "
                        "of "
                        "%s?\n",
                        path, unit);
                return EX_PROTOCOL;
        case -EINVAL:
                fprintf(stderr,
                        "scachectl: The service on %s does not accept this request: is it older than this "
                        "command?\n",
                        path);
                return EX_DATAERR;
        default:
                fprintf(stderr, "scachectl: Could not use %s: %s.\n", path, strerror(-error));
                return EX_OSERR;
        }
}
