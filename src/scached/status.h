/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scached: the state of the daemon in one line, for `systemctl status` */
#pragma once

#include "cache/cache.h"
#include "custody/statistics.h"
#include "daemon/notify.h"
#include "daemon/timer.h"

#define STATUS_MAX 128

struct status {
        const struct cache *cache;
        const struct statistics *statistics;
        struct notify *notify;
        struct loop_timer timer;
        uint64_t looks[4];     /* the numbers at the last look */
        char told[STATUS_MAX]; /* the last line that was sent */
};

/* Begin to report. The arguments must outlive the status. Returns negative errno. */
int status_init(struct status *status, struct loop *loop, const struct cache *cache,
        const struct statistics *statistics, struct notify *notify);
void status_release(struct status *status);

/* If something has changed, tell the service manager within a second. May be called at any rate. */
void status_touch(struct status *status);
