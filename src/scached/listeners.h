/* scached: the sockets that the service manager passed, and the agents that come through them */
#pragma once

#include <stddef.h>

struct passed;
struct server;
struct listeners;

/* Take the listening sockets out of what the service manager passed, and begin to accept. SERVER must outlive them, its
 * agents be there. Those with a name that is no dialect are closed, with a line in the journal. Returns -ENOENT if none
 * is left, or another negative errno. */
int listeners_new(struct listeners **ret, struct server *server, struct passed *passed);

/* Stop accepting and close our copies; the service manager goes on listening. */
struct listeners *listeners_free(struct listeners *listeners);
