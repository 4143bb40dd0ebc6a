/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "base/clock.h"
#include "scachectl/command.h"
#include "scachectl/json.h"
#include "scachectl/listing.h"
#include "scachectl/ranking.h"
#include "scachectl/terminal.h"
#include "scachectl/user-name.h"

/* To the upper left corner, and clear from there. */
#define CLEAR "\033[H\033[2J"

/* Rows of each kind on a terminal. */
#define ROWS_MAX 10

/* The columns before the misses and the label: lookups, hits, parked, dead. */
#define TABLE_COLUMNS 36

/* Where less is left, the reasons are left out. */
#define REASONS_MIN 40

/* Destinations, and endpoints. */
#define KINDS 2

struct screen {
        const struct options *options;
        struct client *client;
        bool is_told;                 /* whose connections this is about */
        struct ranking before[KINDS]; /* the last update */
        uint64_t before_us;
        struct user_name name;
};

/* The reasons of the misses, most frequent first, with "=" or " " between a reason and its number. */
static void put_reasons(
        char *text, size_t size, const struct ranking_row *row, const char *equals, const char *comma) {
        bool is_told[RANKING_REASONS] = {};
        size_t fill = 0;

        text[0] = 0;
        for (size_t n = 0; n < RANKING_REASONS; n++) {
                size_t most = RANKING_REASONS;
                int length;

                for (size_t i = 0; i < RANKING_REASONS; i++)
                        if (!is_told[i] && row->misses[i] > (most < RANKING_REASONS ? row->misses[most] : 0))
                                most = i;
                if (most == RANKING_REASONS)
                        return;
                is_told[most] = true;
                length = snprintf(text + fill, size - fill, "%s%s%s%" PRIu64, n > 0 ? comma : "",
                        ranking_reasons[most], equals, row->misses[most]);
                if (length < 0 || (size_t) length >= size - fill) {
                        text[fill] = 0;
                        return;
                }
                fill += (size_t) length;
        }
}

static void put_text(const struct ranking_row *row, size_t columns) {
        _cleanup_(freep) char *text = terminal_text((struct slice){ row->label, row->size }, columns);

        fputs(text ? text : "?", stdout);
}

/* A table, for people. */
static void put_table(const struct ranking *ranking) {
        size_t columns = terminal_columns() - TABLE_COLUMNS;
        size_t reasons = columns >= REASONS_MIN ? columns / 2 : 0, labels = columns - reasons;

        printf("%s%13s %5s %7s %6s  %-*.*s%.*s%s\n", terminal_strong(), "LOOKUPS", "HITS", "PARKED", "DEAD",
                (int) reasons, (int) reasons, "MISSES", (int) labels,
                ranking->has_endpoints ? "ENDPOINT" : "DESTINATION", terminal_plain());
        for (size_t i = 0; i < MIN(ranking->n_rows, (size_t) ROWS_MAX); i++) {
                const struct ranking_row *row = &ranking->rows[i];
                char lookups[48], hits[24] = "-", dead[24] = "-", misses[128];

                (void) snprintf(lookups, sizeof(lookups),
                        row->error > 0 ? "%" PRIu64 "+%" PRIu64 : "%" PRIu64, row->lookups, row->error);
                if (row->lookups > 0)
                        (void) snprintf(hits, sizeof(hits), "%" PRIu64 "%%", row->hits * 100 / row->lookups);
                if (ranking->has_endpoints)
                        (void) snprintf(dead, sizeof(dead), "%" PRIu64, row->dead);
                put_reasons(misses, MIN(sizeof(misses), MAX(reasons, (size_t) 1)), row, " ", ", ");
                printf("%13s %5s %7" PRIu64 " %6s  %-*s", lookups, hits, row->parked, dead, (int) reasons,
                        misses);
                put_text(row, labels);
                fputc('\n', stdout);
        }
        if (ranking->n_rows > ROWS_MAX)
                printf("%13s and %zu more\n", "", ranking->n_rows - ROWS_MAX);
}

/* One line for each row, for other programs. */
static void put_lines(struct screen *screen, const struct ranking *ranking) {
        for (size_t i = 0; i < ranking->n_rows; i++) {
                const struct ranking_row *row = &ranking->rows[i];
                char misses[256];

                put_reasons(misses, sizeof(misses), row, "=", ",");
                printf("%s\t%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%s\t",
                        ranking->has_endpoints ? "endpoint" : "destination",
                        row->has_user ? user_name_get(&screen->name, row->user) : "-", row->lookups,
                        row->error, row->hits, row->parked, row->dead, misses[0] ? misses : "-");
                put_text(row, SIZE_MAX / 8);
                fputc('\n', stdout);
        }
}

static void put_number(struct json *json, const char *name, uint64_t number) {
        json_name(json, slice_of(name));
        json_number(json, number);
}

static void put_json_row(struct json *json, const struct ranking *ranking, const struct ranking_row *row) {
        json_open(json, '{');
        json_name(json, ranking->has_endpoints ? SLICE("endpoint") : SLICE("destination"));
        json_text(json, (struct slice){ row->label, row->size });
        if (row->whole_size != row->size)
                put_number(json, "label_size", row->whole_size);
        if (row->has_user)
                put_number(json, "user", row->user);
        put_number(json, "age_us", row->age_us);
        put_number(json, "lookups", row->lookups);
        put_number(json, "error", row->error);
        put_number(json, "hits", row->hits);
        json_name(json, SLICE("misses"));
        json_open(json, '{');
        for (size_t i = 0; i < RANKING_REASONS; i++)
                if (row->misses[i] > 0)
                        put_number(json, ranking_reasons[i], row->misses[i]);
        json_close(json, '}');
        put_number(json, "parked", row->parked);
        if (ranking->has_endpoints)
                put_number(json, "dead", row->dead);
        json_close(json, '}');
}

static void put_json(const struct ranking now[KINDS]) {
        struct json json = JSON_INIT(stdout);

        json_open(&json, '{');
        put_number(&json, "rows_max", now[0].rows_max);
        for (size_t kind = 0; kind < KINDS; kind++) {
                json_name(&json, now[kind].has_endpoints ? SLICE("endpoints") : SLICE("destinations"));
                json_open(&json, '[');
                for (size_t i = 0; i < now[kind].n_rows; i++)
                        put_json_row(&json, &now[kind], &now[kind].rows[i]);
                json_close(&json, ']');
        }
        json_close(&json, '}');
        json_line(&json);
}

static void put(struct screen *screen, const struct ranking shown[KINDS], bool is_live, uint64_t us) {
        bool is_for_people = terminal_is_there();

        if (screen->options->json) {
                put_json(shown);
                return;
        }

        if (is_for_people && is_live)
                fputs(CLEAR, stdout);
        if (is_for_people && us > 0)
                printf("In the last %s:\n\n", terminal_time(us).text);
        for (size_t kind = 0; kind < KINDS; kind++) {
                if (!is_for_people) {
                        put_lines(screen, &shown[kind]);
                        continue;
                }
                put_table(&shown[kind]);
                if (kind + 1 < KINDS)
                        fputc('\n', stdout);
        }
}

/* Ask, and connect again if the service was restarted. */
static int fetch(struct screen *screen, struct ranking now[KINDS]) {
        int r = -ECONNRESET;

        for (unsigned attempt = 0; attempt < 2 && r == -ECONNRESET; attempt++) {
                if (!screen->client) {
                        r = listing_connect(&screen->client, screen->options, !screen->is_told);
                        if (r < 0)
                                return r;
                        screen->is_told = true;
                }
                r = ranking_fetch(&now[0], screen->client, false, screen->options);
                if (r >= 0)
                        r = ranking_fetch(&now[1], screen->client, true, screen->options);
                if (r == -ECONNRESET)
                        screen->client = client_free(screen->client);
        }
        return r;
}

/* Show one update: on a terminal, what was counted since the one before. */
static int update(struct screen *screen, bool is_live) {
        struct ranking now[KINDS] = {}, shown[KINDS] = {};
        uint64_t now_us = clock_now(CLOCK_MONOTONIC);
        bool is_change = screen->before_us > 0 && terminal_is_there() && !screen->options->json;
        int r;

        r = fetch(screen, now);
        for (size_t kind = 0; r >= 0 && kind < KINDS; kind++)
                r = ranking_since(&shown[kind], &now[kind], is_change ? &screen->before[kind] : NULL);
        if (r >= 0 && now[0].rows_max > 0) {
                for (size_t kind = 0; kind < KINDS; kind++)
                        ranking_sort(&shown[kind], screen->options->order);
                put(screen, shown, is_live, is_change ? now_us - screen->before_us : 0);
        } else if (r >= 0)
                r = -ENODATA;

        for (size_t kind = 0; kind < KINDS; kind++) {
                free(shown[kind].rows);
                ranking_release(&screen->before[kind]);
                screen->before[kind] = now[kind];
        }
        screen->before_us = now_us;
        return r;
}

static int run(const struct options *options) {
        const struct timespec interval = { (time_t) (options->interval_us / USEC_PER_SEC),
                (long) (options->interval_us % USEC_PER_SEC * NSEC_PER_USEC) };
        bool is_live = options->has_interval || options->count > 0;
        struct screen screen = { .options = options };
        unsigned n = 0;
        int r;

        for (;;) {
                r = update(&screen, is_live);
                if (r < 0 || fflush(stdout) != 0 || !is_live || ++n == options->count)
                        break;
                (void) nanosleep(&interval, NULL);
        }

        client_free(screen.client);
        for (size_t kind = 0; kind < KINDS; kind++)
                ranking_release(&screen.before[kind]);
        if (r == -ENODATA) {
                fprintf(stderr,
                        "scachectl: The service counts no labels: set connection_cache_history_limit to "
                        "more "
                        "than 0.\n");
                return EX_UNAVAILABLE;
        }
        return r < 0             ? command_explain(options->control_path, UNIT_CONTROL, r)
                : ferror(stdout) ? EX_IOERR
                                 : EX_OK;
}

const struct command command_top = {
        .name = "top",
        .options = OPTIONS_CONTROL | OPTION(USER) | OPTION(BY) | OPTION(INTERVAL) | OPTION(COUNT),
        .summary = "show the busiest destinations and endpoints",
        .help = "Show the destinations and endpoints that are looked up most: lookups, how many\n"
                "of them found a connection, how many connections are parked now, how many the\n"
                "peers closed, and why the other lookups missed. 12+3 lookups are 12, and at\n"
                "most about 3 before the label came into the list. With --interval it is shown\n"
                "again and again, on a terminal with what was counted since the last time.\n"
                "Elsewhere each row is one line, with TABs between the fields: kind, user,\n"
                "lookups, those before at most, found, parked, closed by the peer, reasons of\n"
                "the misses, label.",
        .examples = "  scachectl top --by=misses\n"
                    "  scachectl top --interval=5",
        .run = run,
};
