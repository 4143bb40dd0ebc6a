#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "scachectl/command.h"
#include "scachectl/report.h"

/* OpenMetrics 1.0, with only those kinds of metrics that Prometheus' older text format also has. */

enum kind {
        KIND_GAUGE,
        KIND_COUNTER,
};

/* A family, and its samples: one for each number of the report. */
static const struct {
        const char *name; /* of the family; a counter's samples get _total */
        enum kind kind;
        const char *unit; /* the end of the name, or NULL */
        const char *help;
        struct {
                const char *number; /* in the report */
                const char *labels; /* or NULL */
        } samples[4];
} families[] = {
        { "scached_agents", KIND_GAUGE, NULL, "Connected agents.", { { "agents", NULL } } },
        { "scached_connections", KIND_GAUGE, NULL,
                "Connections by state: parked, lent to an agent that has not taken them yet, leaving.",
                { { "connections", "state=\"parked\"" }, { "connections_lent", "state=\"lent\"" },
                        { "connections_leaving", "state=\"leaving\"" } } },
        { "scached_endpoints", KIND_GAUGE, NULL, "Endpoints that have a parked connection.",
                { { "endpoints", NULL } } },
        { "scached_destinations", KIND_GAUGE, NULL, "Destinations that are bound to endpoints.",
                { { "destinations", NULL } } },
        { "scached_bindings", KIND_GAUGE, NULL, "Bindings of destinations to endpoints.",
                { { "bindings", NULL } } },
        { "scached_memory_bytes", KIND_GAUGE, "bytes", "Memory that the cache uses.",
                { { "memory_bytes", NULL } } },
        { "scached_ttl_limit_seconds", KIND_GAUGE, "seconds", "Longest time to live of a connection.",
                { { "ttl_limit_us", NULL } } },
        { "scached_lookups", KIND_COUNTER, NULL, "Lookups by kind and result.",
                { { "destination_hits", "kind=\"destination\",result=\"hit\"" },
                        { "destination_misses", "kind=\"destination\",result=\"miss\"" },
                        { "endpoint_hits", "kind=\"endpoint\",result=\"hit\"" },
                        { "endpoint_misses", "kind=\"endpoint\",result=\"miss\"" } } },
        { "scached_connections_saved", KIND_COUNTER, NULL, "Connections that were parked.",
                { { "connections_saved", NULL } } },
        { "scached_connections_departed", KIND_COUNTER, NULL,
                "Connections that left the cache without an agent, by reason.",
                { { "connections_expired", "reason=\"expired\"" },
                        { "connections_evicted", "reason=\"evicted\"" },
                        { "connections_flushed", "reason=\"flushed\"" },
                        { "connections_dead", "reason=\"dead\"" } } },
        { "scached_connections_returned", KIND_COUNTER, NULL,
                "Connections that were found, but not taken by the agent.",
                { { "connections_returned", NULL } } },
        { "scached_bindings_saved", KIND_COUNTER, NULL, "Bindings that were saved or renewed.",
                { { "bindings_saved", NULL } } },
        { "scached_bindings_evicted", KIND_COUNTER, NULL, "Bindings that were evicted at a limit.",
                { { "bindings_evicted", NULL } } },
        { "scached_farewells", KIND_COUNTER, NULL, "Farewells that were sent.", { { "farewells", NULL } } },
        { "scached_requests_refused", KIND_COUNTER, NULL, "Requests that were refused, without misses.",
                { { "requests_refused", NULL } } },
        { "scached_agents_accepted", KIND_COUNTER, NULL, "Agents that connected.",
                { { "agents_accepted", NULL } } },
        { "scached_agents_dropped", KIND_COUNTER, NULL,
                "Agents that were disconnected: stuck, with an endless request, or over the limit.",
                { { "agents_dropped", NULL } } },
};

static void put_families(const struct report *report) {
        for (size_t i = 0; i < ELEMENTSOF(families); i++) {
                const char *name = families[i].name, *unit = families[i].unit;
                bool is_counter = families[i].kind == KIND_COUNTER;

                printf("# HELP %s %s\n", name, families[i].help);
                printf("# TYPE %s %s\n", name, is_counter ? "counter" : "gauge");
                if (unit)
                        printf("# UNIT %s %s\n", name, unit);

                for (size_t k = 0; k < ELEMENTSOF(families[i].samples) && families[i].samples[k].number;
                        k++) {
                        const char *labels = families[i].samples[k].labels;
                        uint64_t value = report_number(report, families[i].samples[k].number);

                        printf("%s%s%s%s%s ", name, is_counter ? "_total" : "", labels ? "{" : "",
                                labels ? labels : "", labels ? "}" : "");
                        /* Times are kept in µs; the convention is seconds. */
                        if (unit && strcmp(unit, "seconds") == 0)
                                printf("%" PRIu64 ".%06" PRIu64 "\n", value / USEC_PER_SEC,
                                        value % USEC_PER_SEC);
                        else
                                printf("%" PRIu64 "\n", value);
                }
        }
}

static int run(const struct options *options) {
        struct report report;
        int r;

        r = report_fetch(&report, options->control_path, options->timeout_us);
        if (r < 0)
                return command_explain(options->control_path, UNIT_CONTROL, r);

        if (options->json) {
                report_put_json(&report);
                return EX_OK;
        }

        printf("# HELP scached_build_info Version of the running service.\n# TYPE scached_build_info "
               "gauge\n");
        printf("scached_build_info{version=\"%s\"} 1\n", report.version);
        put_families(&report);
        printf("# EOF\n");
        return EX_OK;
}

const struct command command_metrics = {
        .name = "metrics",
        .options = OPTIONS_CONTROL,
        .summary = "print the state as OpenMetrics text",
        .help = "Print the numbers of \"scachectl status\" as OpenMetrics text, for the textfile\n"
                "collector of Prometheus' node_exporter and the like.",
        .examples = "  scachectl metrics >scached.prom.new && mv scached.prom.new scached.prom",
        .run = run,
};
