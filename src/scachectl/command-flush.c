/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/printable.h"
#include "scachectl/help.h"
#include "scachectl/listing.h"

struct flush {
        struct client *client; /* a second one: the first is in the middle of a list */
        const struct options *options;
        uint64_t n_flushed;
        int error;
};

/* A glob that matches just this label. */
static char *quote(struct slice label) {
        char *glob, *p;

        glob = malloc(2 * label.size + 1);
        if (!glob)
                return NULL;

        p = glob;
        for (size_t i = 0; i < label.size; i++) {
                if (strchr("*?[\\", label.data[i]))
                        *p++ = '\\';
                *p++ = label.data[i];
        }
        *p = 0;
        return glob;
}

static void on_binding(void *userdata, const struct listing_entry *entry) {
        struct flush *flush = userdata;
        const struct options *options = flush->options;
        _cleanup_(freep) char *glob = NULL;

        if (flush->error < 0 || (options->has_user && entry->has_user && entry->user != options->user))
                return;

        glob = quote(entry->endpoint);
        flush->error = !glob ? -ENOMEM
                             : listing_flush(flush->client, glob, options->has_user || entry->has_user,
                                       options->has_user ? options->user : entry->user, &flush->n_flushed);
}

static int flush_destinations(struct flush *flush) {
        _cleanup_(client_freep) struct client *client = NULL;
        struct options all = *flush->options;
        int r;

        /* If users share, a binding has no user, but the connections behind it have one. */
        all.has_user = false;

        r = listing_connect(&client, &all, false);
        if (r < 0)
                return r;
        r = listing_walk(client, &all, true, on_binding, flush);
        return r < 0 ? r : flush->error;
}

static int run(const struct options *options) {
        _cleanup_(client_freep) struct client *client = NULL;
        struct options filter = *options;
        struct flush flush = { .options = &filter };
        int r;

        if (options->n_arguments > 0 && options->endpoint)
                return help_refer(&command_flush, "Give either GLOB or --endpoint");
        if (options->n_arguments > 0)
                filter.endpoint = options->arguments[0];

        r = listing_connect(&client, options, true);
        if (r >= 0) {
                flush.client = client;
                r = options->destination ? flush_destinations(&flush)
                                         : listing_flush(client, filter.endpoint, options->has_user,
                                                   options->user, &flush.n_flushed);
        }
        if (r < 0)
                return command_explain(options->control_path, UNIT_CONTROL, r);

        if (options->json)
                printf("{\"flushed\":%" PRIu64 "}\n", flush.n_flushed);
        else
                printf("Flushed %" PRIu64 " connection%s.\n", flush.n_flushed, plural(flush.n_flushed));
        return EX_OK;
}

const struct command command_flush = {
        .name = "flush",
        .arguments = "[GLOB]",
        .n_arguments_max = 1,
        .options = OPTIONS_CONTROL | OPTIONS_FILTER,
        .summary = "close parked connections, after their farewell",
        .help = "Send the farewell on the parked connections whose endpoint matches GLOB, and\n"
                "close them. Without GLOB and options, close all parked connections.",
        .examples = "  scachectl flush '*192.0.2.7*'     before that address goes away\n"
                    "  scachectl flush --destination='*example.org*'",
        .run = run,
};
