/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: the client's end of the control socket */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/slice.h"
#include "wire/list.h"

struct client;

struct client_attribute {
        struct slice name;
        struct slice value;
};

/* How the greeting calls the protocols that know the requests of the control socket. */
#define CLIENT_CONTROL "scached_control_protocol"
#define CLIENT_AGENT   "connection_cache_protocol" /* only those about what its own user saved */

/* Connect to the socket at PATH that speaks PROTOCOL; each wait takes at most TIMEOUT µs. Returns -EPROTO if another server listens
 * there, -ETIMEDOUT, or the negative errno of connect(2). */
int client_new(struct client **ret, const char *path, const char *protocol, uint64_t timeout_us);
struct client *client_free(struct client *client);
DEFINE_CLEANUP(struct client *, client_free);

/* Send a request and wait for its answer. Returns -EINVAL if the service rejects it, -EACCES if it
 * is about what others saved, -ETIMEDOUT, -ECONNRESET, -EPROTO. */
int client_ask(struct client *client, const struct client_attribute attributes[], size_t n_attributes);

/* Get the next attribute of the answer after its status. Returns false at the end. The slices are NUL-terminated and
 * valid until the next client_ask(). */
bool client_next(struct client *client, struct client_attribute *ret);
