/* scached: what `systemctl status` shows: the state of the daemon in one line */
#pragma once

#include "cache/cache.h"
#include "custody/statistics.h"
#include "daemon/timer.h"

#define STATUS_MAX 128

struct status {
        const struct cache *cache;
        const struct statistics *statistics;
        struct loop_timer timer;
        uint64_t looks[4];     /* of what was last looked at */
        char told[STATUS_MAX]; /* the line that was sent last */
};

/* Begin to report. All of it must outlive the status. Returns negative errno. */
int status_init(struct status *status, struct loop *loop, const struct cache *cache,
        const struct statistics *statistics);
void status_release(struct status *status);

/* Let the service manager know within a second if something has changed. To be called as often as one likes. */
void status_touch(struct status *status);
