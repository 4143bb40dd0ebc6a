/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scached/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/printable.h"

/* The shortest time between two updates of `systemctl status`. */
#define STATUS_INTERVAL_US USEC_PER_SEC

static void on_timer(void *userdata) {
        struct status *status = userdata;
        const struct cache_counts *counts = cache_counts(status->cache);
        const struct statistics_counters *total = &status->statistics->total;
        uint64_t reused = total->deliveries_reused, missed = total->deliveries_missed;
        uint64_t agents = status->statistics->agents;
        char text[STATUS_MAX];
        int n;

        n = snprintf(text, sizeof(text),
                "%" PRIu64 " agent%s, %" PRIu64 " connection%s (%" PRIu64 " endpoint%s, %" PRIu64
                " destination%s)",
                agents, plural(agents), counts->connections, plural(counts->connections), counts->endpoints,
                plural(counts->endpoints), counts->destinations, plural(counts->destinations));
        if (n > 0 && (size_t) n < sizeof(text) && reused + missed > 0)
                (void) snprintf(text + n, sizeof(text) - (size_t) n, ", %u%% reused",
                        statistics_percent(reused, missed));
        if (strcmp(text, status->told) == 0)
                return;

        memcpy(status->told, text, sizeof(text));
        notify_status(status->notify, text);
}

int status_init(struct status *status, struct loop *loop, const struct cache *cache,
        const struct statistics *statistics, struct notify *notify) {
        *status = (struct status){ .cache = cache, .statistics = statistics, .notify = notify };
        return loop_timer_init(&status->timer, loop, on_timer, status);
}

void status_release(struct status *status) {
        loop_timer_release(&status->timer);
}

void status_touch(struct status *status) {
        const struct statistics_counters *total = &status->statistics->total;
        const struct cache_counts *counts;

        if (loop_timer_is_set(&status->timer))
                return;

        counts = cache_counts(status->cache);
        const uint64_t looks[] = { status->statistics->agents, counts->connections, counts->destinations,
                total->deliveries_reused + total->deliveries_missed };
        if (memcmp(looks, status->looks, sizeof(looks)) == 0)
                return;

        memcpy(status->looks, looks, sizeof(looks));
        loop_timer_set(&status->timer, usec_add(loop_now(status->timer.loop), STATUS_INTERVAL_US));
}
