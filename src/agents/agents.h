/* agents: all agents that are connected, how many of them the statistics say, and whose turn it is */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "agents/dialect.h"

struct agents;
struct disposal;
struct server;

/* Make an empty set, whose requests are served from SERVER. That and DISPOSAL, for descriptors that agents send and that
 * are not wanted, must outlive it. Returns negative errno. */
int agents_new(struct agents **ret, struct server *server, struct disposal *disposal);

/* Cut all agents off and free. */
struct agents *agents_free(struct agents *agents);

/* Serve an agent from now on; the set owns the socket, in every case. At the limit, the agent that has said nothing for
 * longest goes. Returns negative errno. */
int agents_add(struct agents *agents, int fd, enum dialect dialect);

/* Give everyone in line a turn. Returns how long to wait at most for the next one, in µs, as loop_round_fn(). */
uint64_t agents_take_turns(struct agents *agents);

/* Cut off all agents that are at rest. Returns how many there still are. */
uint64_t agents_dismiss(struct agents *agents);

/* How many agents may be connected, 0 for no limit; those that are too many go with the next one that comes. */
void agents_set_limit(struct agents *agents, size_t limit);
