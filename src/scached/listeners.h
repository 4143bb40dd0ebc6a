/* scached: the sockets that the service manager passed, and the agents that come through them */
#pragma once

#include <stddef.h>

struct server;
struct listeners;

/* Take over the listening sockets from the service manager and begin to accept. SERVER must outlive them, its agents be
 * there. Those with a name that is no dialect are closed, with a line in the journal. Returns -ENOENT if none is left,
 * or another negative errno. */
int listeners_new(struct listeners **ret, struct server *server);

/* Stop accepting and close our copies; the service manager goes on listening. */
struct listeners *listeners_free(struct listeners *listeners);
