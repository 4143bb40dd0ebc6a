/* agents: what the units that agents send mean, and the answers to them */
#pragma once

#include "agents/agent.h"
#include "agents/server.h"

/* Work on a unit that AGENT sent, and answer it. A descriptor is taken out of it if it is kept. Returns 0, or negative
 * errno if the agent is to be cut off. */
int exchange_unit(struct server *server, struct agent *agent, struct agent_unit *unit);
