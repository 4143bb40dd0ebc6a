/* SPDX-License-Identifier: LGPL-2.1-or-later */
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
                        "scachectl: No service listens on %s: start it with \"systemctl enable --now "
                        "%s\".\n",
                        path, unit);
                return EX_UNAVAILABLE;
        case -EPERM:
                fprintf(stderr,
                        "scachectl: The kernel lets no descriptor pass through %s: remove "
                        "AcceptFileDescriptors=no from %s.\n",
                        path, unit);
                return EX_NOPERM;
        case -EACCES:
                fprintf(stderr,
                        "scachectl: Permission denied for %s: run this as root or as a member of the group "
                        "\"%s\".\n",
                        path, strcmp(unit, UNIT_CONTROL) == 0 ? "scache-admin" : "scache");
                return EX_NOPERM;
        case -ETIMEDOUT:
                fprintf(stderr,
                        "scachectl: No answer on %s in time: see \"systemctl status scached.service\".\n",
                        path);
                return EX_TEMPFAIL;
        case -ECONNRESET:
                fprintf(stderr,
                        "scachectl: The service closed the connection on %s: see \"journalctl -u "
                        "scached.service\".\n",
                        path);
                return EX_TEMPFAIL;
        case -EOPNOTSUPP:
                fprintf(stderr,
                        "scachectl: The service on %s has no epochs: leave --epoch out, or use the socket "
                        "of %s.\n",
                        path, unit);
                return EX_USAGE;
        case -EPROTO:
                fprintf(stderr,
                        "scachectl: The server on %s speaks another protocol: use the socket of %s.\n", path,
                        unit);
                return EX_PROTOCOL;
        case -EINVAL:
                fprintf(stderr,
                        "scachectl: The service on %s rejects this request: it may be older than this "
                        "scachectl.\n",
                        path);
                return EX_DATAERR;
        default:
                fprintf(stderr, "scachectl: Could not use %s: %s.\n", path, strerror(-error));
                return EX_OSERR;
        }
}
