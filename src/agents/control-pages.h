/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: list and flush the entries of the cache, a page at a time */
#pragma once

#include "agents/server.h"
#include "wire/list.h"

/* `list` and `flush`: put their part of the answer into the scratch buffer. Each request visits a bounded part of the cache,
 * and the answer has a cursor for the next one. Labels are shown, properties never. Unless ONLY_USER is NULL, the entries are those
 * that this user saved. Return -EINVAL for a bad request, -EPERM for one about another user, -ENOMEM. */
int control_list(struct server *server, const struct wire_list *list, const uid_t *only_user);
int control_flush(struct server *server, const struct wire_list *list, const uid_t *only_user);
