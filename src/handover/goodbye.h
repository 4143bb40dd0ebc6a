/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* handover: goodbye: a process with copies of what is stored, which says it if nobody takes that over */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "cache/cache.h"
#include "daemon/journal.h"
#include "handover/parcels.h"

/* Between two processes of a restart, only the service manager has what is parked. If no process follows, because a stop comes
 * in between or a start fails, it closes its copies without a word. And who drops the last copy of a socket may have to wait for
 * its peer; only a process that exits does not wait. Therefore a process with copies of its own stays behind until the service
 * manager and the next process have closed the parcels. If nobody has taken over by then, it sends the farewells. It exits
 * last. */

/* Leave a process for N connections, of which PARCELS have copies, too. With SAYS it sends the farewells. All stay the caller's.
 * Where no process can be had, everything is stored all the same. */
void goodbye_leave(struct journal *journal, const struct parcel parcels[], size_t n_parcels,
        struct connection *const connections[], size_t n, bool says);

/* Tell that process that what was in PARCELS, which are N, is taken over. They stay the caller's. */
void goodbye_cancel(const int parcels[], size_t n);
