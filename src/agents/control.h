/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: the requests of administrators on the control socket */
#pragma once

#include "agents/agent.h"
#include "agents/server.h"

/* Is this a request that an agent may send on the native dialect, too, about what its own user saved? */
bool control_is_for_agents(struct slice name);

/* Process a request of the control dialect, or one for agents, which then concerns the agent's own user. Returns 0, or negative errno if
 * the agent must be disconnected. */
int control_request(struct server *server, struct agent *agent, const struct wire_list *list);
