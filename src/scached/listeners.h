/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scached: the listening sockets from the service manager, which accept agents */
#pragma once

#include <stddef.h>

struct arrivals;
struct disposal;
struct listeners;
struct passed;
struct server;

/* Take the listening sockets out of PASSED and begin to accept agents. The other arguments must outlive the listeners. A socket
 * whose name is not a dialect is closed, with a line in the journal. Returns -ENOENT if none is left, or another negative
 * errno. */
int listeners_new(struct listeners **ret, struct server *server, struct arrivals *arrivals,
        struct disposal *disposal, struct passed *passed);

/* Stop accepting and close our copies. The service manager goes on listening. */
struct listeners *listeners_free(struct listeners *listeners);
