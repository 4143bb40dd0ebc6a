#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/printable.h"
#include "scachectl/command.h"
#include "scachectl/listing.h"

struct flush {
        struct client *client; /* a second one: the first is in the middle of a list */
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
        _cleanup_(freep) char *glob = NULL;

        if (flush->error < 0)
                return;

        glob = quote(entry->endpoint);
        flush->error = !glob
                ? -ENOMEM
                : listing_flush(flush->client, glob, entry->has_user, entry->user, &flush->n_flushed);
}

static int flush_destinations(const struct command_options *options, struct flush *flush) {
        _cleanup_(client_freep) struct client *client = NULL;
        int r;

        r = client_new(&client, options->control_path, options->timeout_us);
        if (r < 0)
                return r;
        r = listing_walk(client, options, true, on_binding, flush);
        return r < 0 ? r : flush->error;
}

int command_flush(const struct command_options *options) {
        _cleanup_(client_freep) struct client *client = NULL;
        const char *glob = options->n_arguments > 0 ? options->arguments[0] : options->endpoint;
        struct flush flush = {};
        int r;

        r = client_new(&client, options->control_path, options->timeout_us);
        if (r >= 0) {
                flush.client = client;
                r = options->destination
                        ? flush_destinations(options, &flush)
                        : listing_flush(client, glob, options->has_user, options->user, &flush.n_flushed);
        }
        if (r < 0)
                return command_explain(options->control_path, UNIT_CONTROL, r);

        if (options->json)
                printf("{\"flushed\":%" PRIu64 "}\n", flush.n_flushed);
        else
                printf("Let go of %" PRIu64 " connection%s.\n", flush.n_flushed, plural(flush.n_flushed));
        return EX_OK;
}
