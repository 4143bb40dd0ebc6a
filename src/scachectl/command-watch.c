/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>
#include <time.h>

#include "base/clock.h"
#include "scachectl/command.h"
#include "scachectl/overview.h"
#include "scachectl/report.h"
#include "scachectl/terminal.h"

/* Move to the upper left corner, and clear the screen. */
#define CLEAR "\033[H\033[2J"

static uint64_t lookups(const struct report *report) {
        return report_number(report, "destination_hits") + report_number(report, "destination_misses") +
                report_number(report, "endpoint_hits") + report_number(report, "endpoint_misses");
}

static uint64_t deliveries(const struct report *report) {
        return report_number(report, "deliveries_reused") + report_number(report, "deliveries_missed");
}

/* The rate per second since the last update, 0 if the number was reset in between. */
static double rate(uint64_t now, uint64_t before, uint64_t us) {
        return now >= before && us > 0 ? (double) (now - before) * (double) USEC_PER_SEC / (double) us : 0;
}

static void put_rates(const struct report *now, const struct report *before, uint64_t us) {
        const char *reused = "deliveries_reused";

        printf("         Now: %.1f lookups/s", rate(lookups(now), lookups(before), us));
        if (deliveries(now) > deliveries(before))
                printf(", %" PRIu64 "%% of deliveries reused",
                        (report_number(now, reused) - report_number(before, reused)) * 100 /
                                (deliveries(now) - deliveries(before)));
        printf(", %.1f saved/s\n",
                rate(report_number(now, "connections_saved"), report_number(before, "connections_saved"),
                        us));
}

/* One update in one line, for output that is not a terminal. */
static void put_line(const struct report *now, const struct report *before, uint64_t us) {
        printf("agents=%" PRIu64 " connections=%" PRIu64 " endpoints=%" PRIu64 " destinations=%" PRIu64
               " lookups_per_second=%.1f saved_per_second=%.1f\n",
                report_number(now, "agents"), report_number(now, "connections"),
                report_number(now, "endpoints"), report_number(now, "destinations"),
                rate(lookups(now), lookups(before), us),
                rate(report_number(now, "connections_saved"), report_number(before, "connections_saved"),
                        us));
}

static int run(const struct options *options) {
        _cleanup_(client_freep) struct client *client = NULL;
        const struct timespec interval = { (time_t) (options->interval_us / USEC_PER_SEC),
                (long) (options->interval_us % USEC_PER_SEC * NSEC_PER_USEC) };
        struct report now, before = {};
        uint64_t now_us, before_us = 0;
        int r;

        for (unsigned i = 0;; i++) {
                if (i > 0)
                        (void) nanosleep(&interval, NULL);

                /* Connect again if the service was restarted. */
                r = client ? report_ask(&now, client) : -ECONNRESET;
                if (r == -ECONNRESET) {
                        client_freep(&client);
                        client = NULL;
                        r = client_new(&client, options->control_path, CLIENT_CONTROL, options->timeout_us);
                        if (r >= 0)
                                r = report_ask(&now, client);
                }
                if (r < 0)
                        return command_explain(options->control_path, UNIT_CONTROL, r);

                now_us = clock_now(CLOCK_MONOTONIC);
                if (i == 0) {
                        before = now;
                        before_us = now_us;
                }

                if (options->json)
                        report_put_json(&now, stdout);
                else if (terminal_is_there()) {
                        printf(CLEAR);
                        overview_put(&now);
                        put_rates(&now, &before, now_us - before_us);
                } else
                        put_line(&now, &before, now_us - before_us);
                if (fflush(stdout) != 0)
                        return EX_IOERR;

                if (options->count > 0 && i + 1 >= options->count)
                        return EX_OK;
                before = now;
                before_us = now_us;
        }
}

const struct command command_watch = {
        .name = "watch",
        .options = OPTIONS_CONTROL | OPTION(INTERVAL) | OPTION(COUNT),
        .summary = "show the state again and again",
        .help = "Show the state of scached again and again: on a terminal in the same place,\n"
                "elsewhere one line at a time. A restart of scached does not end it.",
        .examples = "  scachectl watch\n"
                    "  scachectl watch --json --interval=60 --count=10",
        .run = run,
};
