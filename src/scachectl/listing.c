/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/listing.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CURSOR_MAX 256

/* A request that is being built. */
struct query {
        struct client_attribute attributes[6];
        size_t n_attributes;
        char user[24];
};

static void add(struct query *query, const char *name, const char *value) {
        if (value)
                query->attributes[query->n_attributes++] =
                        (struct client_attribute){ slice_of(name), slice_of(value) };
}

static void add_user(struct query *query, uint64_t user) {
        (void) snprintf(query->user, sizeof(query->user), "%" PRIu64, user);
        add(query, "user", query->user);
}

/* Ask for the page at CURSOR, empty for the first one. */
static int ask(struct client *client, const struct query *query, const char *cursor) {
        struct query page = *query;

        add(&page, "cursor", *cursor ? cursor : NULL);
        return client_ask(client, page.attributes, page.n_attributes);
}

static void keep_cursor(char cursor[static CURSOR_MAX], struct slice value) {
        if (value.size < CURSOR_MAX)
                memcpy(cursor, value.data, value.size + 1);
}

static uint64_t number(struct slice value) {
        uint64_t n;

        return wire_number(value, &n) < 0 ? 0 : n;
}

/* Read the entries of a page; each begins with the label it is about. */
static void read_page(struct client *client, bool bindings, listing_fn fn, void *userdata, char *cursor) {
        struct slice first = bindings ? SLICE("destination") : SLICE("endpoint");
        struct client_attribute attribute;
        struct listing_entry entry = {};

        while (client_next(client, &attribute)) {
                if (slice_equal(attribute.name, first) || slice_equal(attribute.name, SLICE("cursor"))) {
                        if (entry.endpoint.data)
                                fn(userdata, &entry);
                        entry = (struct listing_entry){};
                }
                if (slice_equal(attribute.name, SLICE("cursor")))
                        keep_cursor(cursor, attribute.value);
                else if (slice_equal(attribute.name, SLICE("destination")))
                        entry.destination = attribute.value;
                else if (slice_equal(attribute.name, SLICE("endpoint")))
                        entry.endpoint = attribute.value;
                else if (slice_equal(attribute.name, SLICE("user"))) {
                        entry.has_user = true;
                        entry.user = number(attribute.value);
                } else if (slice_equal(attribute.name, SLICE("age_us")))
                        entry.age_us = number(attribute.value);
                else if (slice_equal(attribute.name, SLICE("remaining_us")))
                        entry.remaining_us = number(attribute.value);
        }

        if (entry.endpoint.data)
                fn(userdata, &entry);
}

int listing_connect(struct client **ret, const struct options *options, bool tell) {
        int r;

        r = client_new(ret, options->control_path, CLIENT_CONTROL, options->timeout_us);
        if (r != -EACCES || strcmp(options->control_path, CONTROL_PATH) != 0 ||
                client_new(ret, options->service_path, CLIENT_AGENT, options->timeout_us) < 0)
                return r;

        if (tell)
                fputs("scachectl: No permission for " CONTROL_PATH
                      ": this is about your own connections only.\n",
                        stderr);
        return 0;
}

int listing_walk(
        struct client *client, const struct options *options, bool bindings, listing_fn fn, void *userdata) {
        char cursor[CURSOR_MAX] = "";
        struct query query = {};
        int r;

        add(&query, "request", "list");
        add(&query, "kind", bindings ? "bindings" : "connections");
        add(&query, "endpoint", options->endpoint);
        add(&query, "destination", bindings ? options->destination : NULL);
        if (options->has_user)
                add_user(&query, options->user);

        do {
                r = ask(client, &query, cursor);
                if (r < 0)
                        return r;
                cursor[0] = 0;
                read_page(client, bindings, fn, userdata, cursor);
        } while (cursor[0]);

        return 0;
}

int listing_flush(
        struct client *client, const char *glob, bool has_user, uint64_t user, uint64_t *n_flushed) {
        char cursor[CURSOR_MAX] = "";
        struct query query = {};
        int r;

        add(&query, "request", "flush");
        add(&query, "endpoint", glob);
        if (has_user)
                add_user(&query, user);

        do {
                struct client_attribute attribute;

                r = ask(client, &query, cursor);
                if (r < 0)
                        return r;
                cursor[0] = 0;
                while (client_next(client, &attribute))
                        if (slice_equal(attribute.name, SLICE("flushed")))
                                *n_flushed += number(attribute.value);
                        else if (slice_equal(attribute.name, SLICE("cursor")))
                                keep_cursor(cursor, attribute.value);
        } while (cursor[0]);

        return 0;
}
