/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/overview.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/printable.h"
#include "scachectl/ranking.h"
#include "scachectl/terminal.h"

static void put_share(const struct report *report, const char *label, const char *hits_name,
        const char *misses_name, const char *verb) {
        uint64_t hits = report_number(report, hits_name), misses = report_number(report, misses_name);
        uint64_t all = hits + misses;

        printf("%s%" PRIu64, label, all);
        if (all > 0)
                printf(", %" PRIu64 "%% %s", hits * 100 / all, verb);
        printf("\n");
}

/* Why lookups missed, of both kinds together. */
static void put_reasons(const struct report *report) {
        const char *comma = "";

        printf("         Misses:");
        for (size_t i = 0; i < RANKING_REASONS; i++) {
                char destination[REPORT_NAME_MAX], endpoint[REPORT_NAME_MAX];
                uint64_t n;

                (void) snprintf(
                        destination, sizeof(destination), "destination_misses_%s", ranking_reasons[i]);
                (void) snprintf(endpoint, sizeof(endpoint), "endpoint_misses_%s", ranking_reasons[i]);
                n = report_number(report, destination) + report_number(report, endpoint);
                if (n == 0)
                        continue;
                printf("%s %" PRIu64 " %s", comma, n, ranking_reasons[i]);
                comma = ",";
        }
        printf("%s\n", *comma ? "" : " 0");
}

void overview_put(const struct report *report) {
        const char *strong = terminal_strong(), *plain = terminal_plain();

#define N(name) report_number(report, name)
        printf("%sscached %s%s, process %" PRIu64 "\n", strong, report->version, plain, N("process_id"));
        printf("         Agents: %" PRIu64 " connected, %" PRIu64 " since the start\n", N("agents"),
                N("agents_accepted"));
        printf("    Connections: %s%" PRIu64 " parked%s, %" PRIu64 " being handed over, %" PRIu64
               " closing\n",
                strong, N("connections"), plain, N("connections_lent"), N("connections_leaving"));
        printf("      Endpoints: %" PRIu64 "\n", N("endpoints"));
        printf("   Destinations: %" PRIu64 ", bindings: %" PRIu64 "\n", N("destinations"), N("bindings"));
        printf("         Memory: %s, history: %s\n", terminal_bytes(N("memory_bytes")).text,
                terminal_bytes(N("history_memory_bytes")).text);
        put_share(report, "     Deliveries: ", "deliveries_reused", "deliveries_missed",
                "over a connection that was parked");
        put_share(report, "   Destinations looked up: ", "destination_hits", "destination_misses", "found");
        put_share(report, "      Endpoints looked up: ", "endpoint_hits", "endpoint_misses", "found");
        put_reasons(report);
        printf("          Saved: %" PRIu64 "; expired %" PRIu64 ", dead %" PRIu64 ", evicted %" PRIu64
               ", flushed %" PRIu64 ", outdated %" PRIu64 "\n",
                N("connections_saved"), N("connections_expired"), N("connections_dead"),
                N("connections_evicted"), N("connections_flushed"), N("connections_outdated"));
        printf("        Refused: %" PRIu64 " request%s; disconnected: %" PRIu64 " agent%s\n",
                N("requests_refused"), plural(N("requests_refused")), N("agents_dropped"),
                plural(N("agents_dropped")));
        printf("         Limits: time to live %s; users %s connections\n",
                terminal_time(N("ttl_limit_us")).text, N("share_between_users") ? "share" : "do not share");
#undef N
}
