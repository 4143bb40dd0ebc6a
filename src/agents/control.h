/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: the requests of administrators on the control socket */
#pragma once

#include "agents/agent.h"
#include "agents/server.h"

/* Process a request of the control dialect. Returns 0, or negative errno if the agent must be disconnected. */
int control_request(struct server *server, struct agent *agent, const struct wire_list *list);
