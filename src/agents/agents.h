/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: the set of connected agents, and the order of their turns; their number is in the statistics */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "agents/dialect.h"
#include "epochs/epoch.h"

struct agents;
struct disposal;
struct server;

/* Make an empty set. SERVER, from which requests are served, and DISPOSAL, for descriptors to close, must outlive it.
 * Returns negative errno. */
int agents_new(struct agents **ret, struct server *server, struct disposal *disposal);

/* Disconnect all agents and free the set. */
struct agents *agents_free(struct agents *agents);

/* Add an agent, which runs in EPOCH. Takes the socket, even if it fails. At the limit, the agent that has been idle longest is disconnected.
 * Returns negative errno. */
int agents_add(struct agents *agents, int fd, enum dialect dialect, struct epoch epoch);

/* Give each waiting agent a turn. Returns the longest time to wait for the next turn, in µs, as loop_round_fn(). */
uint64_t agents_take_turns(struct agents *agents);

/* Disconnect all agents that are at rest. Returns the number of agents that are left. */
uint64_t agents_dismiss(struct agents *agents);

/* Set the largest number of agents, 0 for no limit. Agents above it are disconnected when the next one connects. */
void agents_set_limit(struct agents *agents, size_t limit);

/* Have the new ipc_timeout apply to agents that are in the middle of an exchange. */
void agents_reschedule(struct agents *agents);
