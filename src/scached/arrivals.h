/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scached: agents that were accepted, until it is known under which configuration they run */
#pragma once

#include "agents/dialect.h"

struct agents;
struct arrivals;
struct disposal;
struct epochs;
struct server;

/* Make an empty set. The arguments must outlive it. Returns negative errno. */
int arrivals_new(struct arrivals **ret, struct server *server, struct agents *agents,
        struct disposal *disposal, struct epochs *epochs);

/* Disconnect those that are left, and free. */
struct arrivals *arrivals_free(struct arrivals *arrivals);

/* Take the socket of an agent that was accepted. QUEUE is the queue directory of Postfix in which the listening socket is, NULL if
 * it is in none: then the agent is served at once, and belongs to no epoch. */
void arrivals_take(struct arrivals *arrivals, int fd, enum dialect dialect, const char *queue);

/* Serve all that are left, as agents of which nothing is known. */
void arrivals_hurry(struct arrivals *arrivals);
