/* scached: the sockets that the service manager passed, and the agents that come through them */
#pragma once

#include <stddef.h>

struct agents;
struct listeners;
struct passed;
struct server;

/* Take the listening sockets out of what the service manager passed, and begin to accept for AGENTS, which must outlive
 * them as SERVER must. Those with a name that is no dialect are closed, with a line in the journal. Returns -ENOENT if none
 * is left, or another negative errno. */
int listeners_new(
        struct listeners **ret, struct server *server, struct agents *agents, struct passed *passed);

/* Stop accepting and close our copies; the service manager goes on listening. */
struct listeners *listeners_free(struct listeners *listeners);
