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

/* Connect to the control socket at PATH; each wait takes at most TIMEOUT µs. Returns -EPROTO if another server listens
 * there, -ETIMEDOUT, or the negative errno of connect(2). */
int client_new(struct client **ret, const char *path, uint64_t timeout_us);
struct client *client_free(struct client *client);
DEFINE_CLEANUP(struct client *, client_free);

/* Send a request and wait for its answer. Returns -EINVAL if the service rejects it, -ETIMEDOUT, -ECONNRESET, -EPROTO. */
int client_ask(struct client *client, const struct client_attribute attributes[], size_t n_attributes);

/* Get the next attribute of the answer after its status. Returns false at the end. The slices are NUL-terminated and
 * valid until the next client_ask(). */
bool client_next(struct client *client, struct client_attribute *ret);
