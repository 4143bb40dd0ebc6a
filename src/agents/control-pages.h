/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: list and flush the entries of the cache, a page at a time */
#pragma once

#include "agents/server.h"
#include "wire/list.h"

/* `list` and `flush`: put their part of the answer into the scratch buffer. Each request visits a bounded part of the cache,
 * and the answer has a cursor for the next one. Labels are shown, properties never. Return -EINVAL for a bad request,
 * -ENOMEM. */
int control_list(struct server *server, const struct wire_list *list);
int control_flush(struct server *server, const struct wire_list *list);
