/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* handover: keeper: says goodbye to what is stored if nobody takes it over */
#pragma once

#include <stddef.h>

#include "cache/cache.h"
#include "daemon/journal.h"

/* Between two processes of a restart, only the service manager has what is parked. If no process follows, because a stop comes
 * in between or a start fails, it closes its copies without a word. Therefore a process stays behind, the keeper, with copies of
 * its own. It exits when the next process has taken over. When the parcels are closed before that, it sends the farewells. It
 * also has the last copy then: who closes one before never waits for a peer. */

/* Leave a keeper of CONNECTIONS, which are N and stored. LINE is the sender of one of their parcels. All stay the caller's.
 * Without a keeper, which is the case where no process can be had, everything is stored as well. */
void keeper_leave(struct journal *journal, int line, struct connection *const connections[], size_t n);

/* Tell the keeper that what was in PARCELS, which are N, is taken over. They stay the caller's. */
void keeper_dismiss(const int parcels[], size_t n);
