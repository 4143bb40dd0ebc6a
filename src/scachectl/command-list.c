/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "base/clock.h"
#include "scachectl/command.h"
#include "scachectl/json.h"
#include "scachectl/listing.h"
#include "scachectl/terminal.h"
#include "scachectl/user-name.h"

/* The columns before the labels in a table: user, age, time left. */
#define TABLE_FORMAT  "%-12.12s %7s %7s  "
#define TABLE_COLUMNS 30

struct table {
        bool is_json;
        bool is_for_people;
        bool has_bindings;
        size_t columns; /* for the labels */
        struct json json;
        size_t n_entries;
        struct user_name name;
};

static const char *user_name(struct table *table, const struct listing_entry *entry) {
        return entry->has_user ? user_name_get(&table->name, entry->user) : "-";
}

static void put_text(struct slice label, size_t columns) {
        _cleanup_(freep) char *text = terminal_text(label, columns);

        fputs(text ? text : "?", stdout);
}

static void put_row(struct table *table, const struct listing_entry *entry) {
        printf(TABLE_FORMAT, user_name(table, entry), terminal_time(entry->age_us).text,
                terminal_time(entry->remaining_us).text);
        if (table->has_bindings) {
                /* Each label gets half of the space beside the arrow. */
                put_text(entry->destination, (table->columns - 4) / 2);
                fputs(" -> ", stdout);
                put_text(entry->endpoint, (table->columns - 4) / 2);
        } else
                put_text(entry->endpoint, table->columns);
        fputc('\n', stdout);
}

static void put_line(struct table *table, const struct listing_entry *entry) {
        printf("%s\t%.3f\t%.3f\t", user_name(table, entry), (double) entry->age_us / USEC_PER_SEC,
                (double) entry->remaining_us / USEC_PER_SEC);
        if (table->has_bindings) {
                put_text(entry->destination, SIZE_MAX / 8);
                fputc('\t', stdout);
        }
        put_text(entry->endpoint, SIZE_MAX / 8);
        fputc('\n', stdout);
}

static void put_json(struct table *table, const struct listing_entry *entry) {
        struct json *json = &table->json;

        if (table->n_entries > 1)
                fputs(",\n", stdout);
        json->is_first = true;
        json_open(json, '{');
        if (table->has_bindings) {
                json_name(json, SLICE("destination"));
                json_text(json, entry->destination);
        }
        json_name(json, SLICE("endpoint"));
        json_text(json, entry->endpoint);
        if (entry->has_user) {
                json_name(json, SLICE("user"));
                json_number(json, entry->user);
        }
        json_name(json, SLICE("age_us"));
        json_number(json, entry->age_us);
        json_name(json, SLICE("remaining_us"));
        json_number(json, entry->remaining_us);
        json_close(json, '}');
}

static void on_entry(void *userdata, const struct listing_entry *entry) {
        struct table *table = userdata;

        table->n_entries++;
        if (table->is_json)
                put_json(table, entry);
        else if (table->is_for_people)
                put_row(table, entry);
        else
                put_line(table, entry);
}

static int run(const struct options *options) {
        _cleanup_(client_freep) struct client *client = NULL;
        struct table table = {
                .is_json = options->json,
                .is_for_people = !options->json && terminal_is_there(),
                .has_bindings = options->bindings || options->destination,
                .columns = terminal_columns() - TABLE_COLUMNS,
                .json = JSON_INIT(stdout),
        };
        int r;

        r = listing_connect(&client, options, true);
        if (r < 0)
                return command_explain(options->control_path, UNIT_CONTROL, r);

        if (table.is_json)
                fputc('[', stdout);
        if (table.is_for_people) {
                fputs(terminal_strong(), stdout);
                printf(TABLE_FORMAT "%.*s", "USER", "AGE", "LEFT", (int) table.columns,
                        table.has_bindings ? "DESTINATION -> ENDPOINT" : "ENDPOINT");
                printf("%s\n", terminal_plain());
        }

        r = listing_walk(client, options, table.has_bindings, on_entry, &table);
        if (r < 0)
                return command_explain(options->control_path, UNIT_CONTROL, r);

        if (table.is_json)
                fputs("]\n", stdout);
        if (table.is_for_people)
                printf("%zu %s%s\n", table.n_entries, table.has_bindings ? "binding" : "connection",
                        table.n_entries == 1 ? "" : "s");
        return EX_OK;
}

const struct command command_list = {
        .name = "list",
        .options = OPTIONS_CONTROL | OPTIONS_FILTER | OPTION(BINDINGS),
        .summary = "list parked connections, or bindings",
        .help = "List the parked connections. With --bindings or --destination, list the bindings\n"
                "of destinations to endpoints. On a terminal this is a table, elsewhere one line\n"
                "for each entry, with TABs between the fields: user, age and time left in\n"
                "seconds, destination (of a binding), endpoint.",
        .examples = "  scachectl list --user=postfix\n"
                    "  scachectl list --destination='*example.org*'",
        .run = run,
};
