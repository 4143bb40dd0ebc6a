/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: the meaning of the units that agents send, and the answers to them */
#pragma once

#include "agents/agent.h"
#include "agents/server.h"

/* Process and answer a unit from AGENT. Takes its descriptor out if it is kept. Returns 0, or negative errno if the agent
 * must be disconnected. */
int exchange_unit(struct server *server, struct agent *agent, struct agent_unit *unit);

/* The agent looks for something else, or goes away: the connection that it found before is used up, unless it was parked again. */
void exchange_used_up(struct server *server, struct agent *agent);
