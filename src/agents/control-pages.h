/* agents: lists of what the cache holds, a page at a time, and letting go of it */
#pragma once

#include "agents/server.h"
#include "wire/list.h"

/* `list` and `flush`: put what belongs into the answer to the scratch buffer. However much the cache holds, a request
 * looks at a bounded part of it and says where the next one is to go on. Labels are shown, properties never. Return
 * -EINVAL if the request makes no sense, -ENOMEM. */
int control_list(struct server *server, const struct wire_list *list);
int control_flush(struct server *server, const struct wire_list *list);
