/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: the service as an agent sees it */
#pragma once

#include "base/cleanup.h"
#include "libscache/scache.h"
#include "scachectl/command.h"

DEFINE_CLEANUP(struct scache *, scache_free);

/* Make a libscache handle with the path, dialect, timeout and epoch of the options. Returns negative errno. */
static inline int service_new(struct scache **ret, const struct options *options) {
        int r;

        r = scache_new(ret, options->service_path, options->legacy ? SCACHE_LEGACY : 0);
        if (r < 0)
                return r;

        scache_set_timeout(*ret, options->timeout_us);
        return scache_set_epoch(*ret, options->epoch);
}
