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

/* Add an agent, which runs in EPOCH. Takes the socket, even if it fails. At the limit, the user who has most agents loses the one
 * that has been idle longest. Returns negative errno. */
int agents_add(struct agents *agents, int fd, enum dialect dialect, struct epoch epoch);

/* Give each waiting agent a turn. Returns the longest time to wait for the next turn, in µs, as loop_round_fn(). */
uint64_t agents_take_turns(struct agents *agents);

/* The daemon exits: call agents_dismiss() in each round from now on. */
void agents_leave(struct agents *agents);

/* Disconnect all agents that are at rest, and those in mid-exchange that have been silent for some milliseconds. Returns the longest
 * time until the next call, in µs, as loop_round_fn(). */
uint64_t agents_dismiss(struct agents *agents);

/* 0 is no limit. */
struct agents_limits {
        uint64_t agents;
        uint64_t memory;    /* bytes of large buffers */
        uint64_t in_flight; /* descriptors that were sent and may not have arrived */
};

/* Set the limits. Agents above them are disconnected later: when the next one connects, or has its turn. */
void agents_set_limits(struct agents *agents, const struct agents_limits *limits);

/* Have the new ipc_timeout apply to agents that are in the middle of an exchange. */
void agents_reschedule(struct agents *agents);
