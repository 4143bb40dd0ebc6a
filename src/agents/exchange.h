/* agents: what the lists that agents send mean, and the answers to them */
#pragma once

#include "agents/agent.h"

/* Work on a list that an agent sent, and on what was passed with it: a descriptor in PASSING is taken out if it is
 * kept. Returns 0, or negative errno if the agent is to be cut off. */
int exchange_list(struct agent *agent, const struct wire_list *list, struct wire_passing *passing);

/* Work on the byte that was to carry the descriptor for the request LIST. */
int exchange_descriptor(struct agent *agent, const struct wire_list *list, struct wire_passing *passing);
