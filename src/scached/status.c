#include "scached/status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "agents/server.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/printable.h"
#include "daemon/timer.h"

/* `systemctl status` is told no more often than this. */
#define STATUS_INTERVAL_US USEC_PER_SEC

#define STATUS_MAX 128

struct status {
        struct server *server;
        struct loop_timer timer;
        uint64_t looks[4]; /* of what was last looked at */
        char told[STATUS_MAX];
};

int status_describe(const struct server *server, char *buffer, size_t size) {
        const struct cache_counts *counts = cache_counts(server->cache);
        const struct statistics_counters *total = &server->statistics.total;
        uint64_t hits = total->destination_hits + total->endpoint_hits;
        uint64_t misses = total->destination_misses + total->endpoint_misses;
        uint64_t agents = server->statistics.agents;
        int n;

        n = snprintf(buffer, size,
                "%" PRIu64 " agent%s, %" PRIu64 " connection%s (%" PRIu64 " endpoint%s, %" PRIu64
                " destination%s)",
                agents, plural(agents), counts->connections, plural(counts->connections), counts->endpoints,
                plural(counts->endpoints), counts->destinations, plural(counts->destinations));
        if (n > 0 && (size_t) n < size && hits + misses > 0)
                n += snprintf(
                        buffer + n, size - (size_t) n, ", %u%% hits", statistics_percent(hits, misses));
        return n;
}

static void tell(struct status *status) {
        char text[STATUS_MAX];

        (void) status_describe(status->server, text, sizeof(text));
        if (strcmp(text, status->told) == 0)
                return;

        memcpy(status->told, text, sizeof(text));
        (void) sd_notifyf(false, "STATUS=%s", text);
}

static void on_timer(void *userdata) {
        tell(userdata);
}

int status_new(struct status **ret, struct server *server) {
        struct status *status;
        int r;

        status = calloc(1, sizeof(*status));
        if (!status)
                return -ENOMEM;

        status->server = server;
        r = loop_timer_init(&status->timer, server->loop, on_timer, status);
        if (r < 0) {
                status_free(status);
                return r;
        }

        *ret = status;
        return 0;
}

struct status *status_free(struct status *status) {
        if (!status)
                return NULL;

        loop_timer_release(&status->timer);
        free(status);
        return NULL;
}

void status_touch(struct status *status) {
        const struct server *server = status->server;
        const struct statistics_counters *total = &server->statistics.total;
        const struct cache_counts *counts;
        uint64_t looks[ELEMENTSOF(status->looks)];

        if (loop_timer_is_set(&status->timer))
                return;

        counts = cache_counts(server->cache);
        looks[0] = server->statistics.agents;
        looks[1] = counts->connections;
        looks[2] = counts->destinations;
        looks[3] = total->destination_hits + total->destination_misses + total->endpoint_hits +
                total->endpoint_misses;
        if (memcmp(looks, status->looks, sizeof(looks)) == 0)
                return;
        memcpy(status->looks, looks, sizeof(looks));

        loop_timer_set(&status->timer, usec_add(loop_now(server->loop), STATUS_INTERVAL_US));
}
