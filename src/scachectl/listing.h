/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: the parked connections or bindings, page by page */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "scachectl/client.h"
#include "scachectl/command.h"

/* An entry; the slices are NUL-terminated and valid until the next request. */
struct listing_entry {
        struct slice destination; /* of a binding */
        struct slice endpoint;
        bool has_user;
        uint64_t user;
        uint64_t age_us;
        uint64_t remaining_us;
};

typedef void (*listing_fn)(void *userdata, const struct listing_entry *entry);

/* Connect to the control socket, or, without permission for it, to the socket of agents, which shows the user's own
 * connections, and say so on standard error if TELL. With --control, there is no other way. Returns negative errno as client_new(). */
int listing_connect(struct client **ret, const struct options *options, bool tell);

/* Call FN for each connection or binding that matches the options. Returns negative errno as client_ask(). */
int listing_walk(
        struct client *client, const struct options *options, bool bindings, listing_fn fn, void *userdata);

/* Flush all connections of endpoints that match GLOB (NULL: all), with HAS_USER only those of USER. Adds their number to
 * N_FLUSHED, even if it fails. Returns negative errno as client_ask(). */
int listing_flush(
        struct client *client, const char *glob, bool has_user, uint64_t user, uint64_t *n_flushed);
