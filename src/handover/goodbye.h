/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* handover: goodbye: a process that says it to what is stored, if nobody takes that over */
#pragma once

#include <stddef.h>

#include "cache/cache.h"
#include "daemon/journal.h"

/* Between two processes of a restart, only the service manager has what is parked. If no process follows, because a stop comes
 * in between or a start fails, it closes its copies without a word. Therefore a process with copies of its own stays
 * behind. It exits when the next process has taken over. When the parcels are closed before that, it sends the farewells. It
 * also has the last copy then: who closes one before never waits for a peer. */

/* Leave a process for CONNECTIONS, which are N and stored. LINE is the sender of one of their parcels. All stay the caller's.
 * Where no process can be had, everything is stored all the same. */
void goodbye_leave(struct journal *journal, int line, struct connection *const connections[], size_t n);

/* Tell that process that what was in PARCELS, which are N, is taken over. They stay the caller's. */
void goodbye_cancel(const int parcels[], size_t n);
