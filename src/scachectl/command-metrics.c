/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "scachectl/command.h"
#include "scachectl/output.h"
#include "scachectl/report.h"

/* OpenMetrics 1.0, and Prometheus' text format 0.0.4. The latter has one name for a family and its samples, and fewer types. */

enum kind {
        KIND_GAUGE,
        KIND_COUNTER,
        KIND_INFO,
        KIND_HISTOGRAM,
};

static const struct {
        const char *suffix; /* of its samples */
        const char *type[_METRICS_MAX];
} kinds[] = {
        [KIND_GAUGE] = { "", { [METRICS_OPENMETRICS] = "gauge", [METRICS_PROMETHEUS] = "gauge" } },
        [KIND_COUNTER] = { "_total",
                { [METRICS_OPENMETRICS] = "counter", [METRICS_PROMETHEUS] = "counter" } },
        [KIND_INFO] = { "_info", { [METRICS_OPENMETRICS] = "info", [METRICS_PROMETHEUS] = "gauge" } },
        [KIND_HISTOGRAM] = { "",
                { [METRICS_OPENMETRICS] = "histogram", [METRICS_PROMETHEUS] = "histogram" } },
};

/* The samples of lookups that missed, one for each reason. */
#define MISS(kind, reason) \
        { kind "_misses_" reason, "kind=\"" kind "\",reason=\"" reason "\"" }
#define MISSES(kind)                                                                                       \
        MISS(kind, "unknown"), MISS(kind, "expired"), MISS(kind, "dead"), MISS(kind, "evicted"),           \
                MISS(kind, "flushed"), MISS(kind, "replaced"), MISS(kind, "outdated"), MISS(kind, "busy"), \
                MISS(kind, "used")

/* A family, and its samples: one for each number of the report; of a histogram, what the names of its numbers begin with. */
static const struct {
        const char *name; /* of the family */
        enum kind kind;
        const char *unit; /* the end of the name, or NULL */
        const char *help;
        struct {
                const char *number; /* in the report */
                const char *labels; /* or NULL */
        } samples[20];
} families[] = {
        { "scached_agents", KIND_GAUGE, NULL, "Connected agents.", { { "agents", NULL } } },
        { "scached_connections", KIND_GAUGE, NULL,
                "Connections by state: parked, lent to an agent that has not taken them yet, leaving.",
                { { "connections", "state=\"parked\"" }, { "connections_lent", "state=\"lent\"" },
                        { "connections_leaving", "state=\"leaving\"" } } },
        { "scached_descriptors_closing", KIND_GAUGE, NULL,
                "Descriptors that wait to be closed. If it stays high, somebody makes their close wait.",
                { { "descriptors_closing", NULL } } },
        { "scached_endpoints", KIND_GAUGE, NULL, "Endpoints that have a parked connection.",
                { { "endpoints", NULL } } },
        { "scached_destinations", KIND_GAUGE, NULL, "Destinations that are bound to endpoints.",
                { { "destinations", NULL } } },
        { "scached_bindings", KIND_GAUGE, NULL, "Bindings of destinations to endpoints.",
                { { "bindings", NULL } } },
        { "scached_memory_bytes", KIND_GAUGE, "bytes", "Memory that the cache uses.",
                { { "memory_bytes", NULL } } },
        { "scached_history_memory_bytes", KIND_GAUGE, "bytes",
                "Memory for what is remembered of labels: why lookups miss, and which are the busiest.",
                { { "history_memory_bytes", NULL } } },
        { "scached_agents_memory_bytes", KIND_GAUGE, "bytes",
                "Memory for large requests and answers of agents.", { { "agents_memory_bytes", NULL } } },
        { "scached_descriptors_in_flight", KIND_GAUGE, NULL,
                "Descriptors that were sent to agents and may not have arrived.",
                { { "descriptors_in_flight", NULL } } },
        { "scached_ttl_limit_seconds", KIND_GAUGE, "seconds", "Longest time to live of a connection.",
                { { "ttl_limit_us", NULL } } },
        { "scached_lookups", KIND_COUNTER, NULL, "Lookups by kind and result.",
                { { "destination_hits", "kind=\"destination\",result=\"hit\"" },
                        { "destination_misses", "kind=\"destination\",result=\"miss\"" },
                        { "endpoint_hits", "kind=\"endpoint\",result=\"hit\"" },
                        { "endpoint_misses", "kind=\"endpoint\",result=\"miss\"" } } },
        { "scached_misses", KIND_COUNTER, NULL,
                "Lookups that missed, by kind and by the last that happened to what was looked up.",
                { MISSES("destination"), MISSES("endpoint") } },
        { "scached_reuse_idle_seconds", KIND_HISTOGRAM, "seconds",
                "Connections that were found, by how long they had been parked.",
                { { "reuse_idle", NULL } } },
        { "scached_expired_ago_seconds", KIND_HISTOGRAM, "seconds",
                "Lookups that missed what had expired, by how long ago.", { { "expired_ago", NULL } } },
        { "scached_dead_idle_seconds", KIND_HISTOGRAM, "seconds",
                "Connections whose peer hung up or sent something, by how long they had been parked.",
                { { "dead_idle", NULL } } },
        { "scached_deliveries", KIND_COUNTER, NULL,
                "Deliveries by the result of all their lookups: one reuse or one miss each.",
                { { "deliveries_reused", "result=\"reused\"" },
                        { "deliveries_missed", "result=\"missed\"" } } },
        { "scached_connections_saved", KIND_COUNTER, NULL, "Connections that were parked.",
                { { "connections_saved", NULL } } },
        { "scached_connections_departed", KIND_COUNTER, NULL,
                "Connections that left the cache without an agent, by reason.",
                { { "connections_expired", "reason=\"expired\"" },
                        { "connections_evicted", "reason=\"evicted\"" },
                        { "connections_flushed", "reason=\"flushed\"" },
                        { "connections_replaced", "reason=\"replaced\"" },
                        { "connections_outdated", "reason=\"outdated\"" },
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

static void put_header(FILE *out, enum metrics_format format, const char *name, enum kind kind,
        const char *unit, const char *help) {
        const char *suffix = format == METRICS_PROMETHEUS ? kinds[kind].suffix : "";

        fprintf(out, "# HELP %s%s %s\n", name, suffix, help);
        fprintf(out, "# TYPE %s%s %s\n", name, suffix, kinds[kind].type[format]);
        if (unit && format == METRICS_OPENMETRICS)
                fprintf(out, "# UNIT %s %s\n", name, unit);
}

/* A number of the report, of which the name is in two parts. */
static uint64_t number_of(const struct report *report, const char *name, const char *suffix) {
        char text[REPORT_NAME_MAX];

        (void) snprintf(text, sizeof(text), "%s_%s", name, suffix);
        return report_number(report, text);
}

/* The report has a number for each bucket alone, here it includes those below it. */
static void put_histogram(FILE *out, enum metrics_format format, const char *name, const char *number,
        const struct report *report) {
        static const struct {
                const char *suffix, *bound;
        } buckets[] = {
                { "100ms", "0.1" },
                { "200ms", "0.2" },
                { "500ms", "0.5" },
                { "1s", "1" },
                { "2s", "2" },
                { "5s", "5" },
                { "10s", "10" },
                { "20s", "20" },
                { "30s", "30" },
                { "60s", "60" },
                { "120s", "120" },
                { "300s", "300" },
                { "600s", "600" },
                { "longer", "+Inf" },
        };
        uint64_t count = 0, us = number_of(report, number, "us");

        for (size_t i = 0; i < ELEMENTSOF(buckets); i++) {
                const char *bound = buckets[i].bound;
                /* OpenMetrics wants a point in each number, and readers of the other one take it out. */
                bool is_whole = !strchr(bound, '.') && *bound != '+';

                count += number_of(report, number, buckets[i].suffix);
                fprintf(out, "%s_bucket{le=\"%s%s\"} %" PRIu64 "\n", name, bound,
                        format == METRICS_OPENMETRICS && is_whole ? ".0" : "", count);
        }
        fprintf(out, "%s_sum %" PRIu64 ".%06" PRIu64 "\n", name, us / USEC_PER_SEC, us % USEC_PER_SEC);
        fprintf(out, "%s_count %" PRIu64 "\n", name, count);
}

static void put_families(FILE *out, enum metrics_format format, const struct report *report) {
        for (size_t i = 0; i < ELEMENTSOF(families); i++) {
                const char *name = families[i].name, *unit = families[i].unit;
                enum kind kind = families[i].kind;

                put_header(out, format, name, kind, unit, families[i].help);
                if (kind == KIND_HISTOGRAM) {
                        put_histogram(out, format, name, families[i].samples[0].number, report);
                        continue;
                }
                for (size_t k = 0; k < ELEMENTSOF(families[i].samples) && families[i].samples[k].number;
                        k++) {
                        const char *labels = families[i].samples[k].labels;
                        uint64_t value = report_number(report, families[i].samples[k].number);

                        fprintf(out, "%s%s%s%s%s ", name, kinds[kind].suffix, labels ? "{" : "",
                                labels ? labels : "", labels ? "}" : "");
                        /* Times are kept in µs; the convention is seconds. */
                        if (unit && strcmp(unit, "seconds") == 0)
                                fprintf(out, "%" PRIu64 ".%06" PRIu64 "\n", value / USEC_PER_SEC,
                                        value % USEC_PER_SEC);
                        else
                                fprintf(out, "%" PRIu64 "\n", value);
                }
        }
}

static void put_metrics(FILE *out, enum metrics_format format, const struct report *report) {
        put_header(out, format, "scached_build", KIND_INFO, NULL, "Version of the running service.");
        fprintf(out, "scached_build_info{version=\"%s\"} 1\n", report->version);
        put_families(out, format, report);
        if (format == METRICS_OPENMETRICS)
                fprintf(out, "# EOF\n");
}

static int run(const struct options *options) {
        struct report report;
        struct output output;
        int r;

        r = report_fetch(&report, options->control_path, options->timeout_us);
        if (r < 0)
                return command_explain(options->control_path, UNIT_CONTROL, r);

        r = output_open(&output, options->output);
        if (r >= 0) {
                if (options->json)
                        report_put_json(&report, output.stream);
                else
                        put_metrics(output.stream, options->format, &report);
                r = output_finish(&output);
        }
        return r < 0 ? output_explain(options->output, r) : EX_OK;
}

const struct command command_metrics = {
        .name = "metrics",
        .options = OPTIONS_CONTROL | OPTION(FORMAT) | OPTION(OUTPUT),
        .summary = "print the state for monitoring",
        .help = "Print the numbers of \"scachectl status\" as OpenMetrics text, or in the older\n"
                "format of Prometheus. The textfile collector of node_exporter reads only the\n"
                "older format; scached-metrics.timer writes it once a minute.",
        .examples = "  scachectl metrics --format=prometheus --output=scached.prom",
        .run = run,
};
