/* agents: what administrators ask on the control socket */
#pragma once

#include "agents/agent.h"
#include "agents/server.h"

/* Work on a request that came over the control dialect. Returns 0, or negative errno if the agent is to be cut off. */
int control_request(struct server *server, struct agent *agent, const struct wire_list *list);
