/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: the busiest labels, for administrators and for the user who looks them up */
#pragma once

#include "agents/server.h"
#include "wire/list.h"

/* `top`: puts a page of the busiest destinations or endpoints into the scratch buffer. Unless ONLY_USER is NULL, they are those that
 * this user's agents look up. Returns -EINVAL for a bad request, -EPERM for one about another user, -ENOMEM. */
int control_top(struct server *server, const struct wire_list *list, const uid_t *only_user);
