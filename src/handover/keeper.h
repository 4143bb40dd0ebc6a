/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* handover: keeper: a process with copies of all stored connections, so that the service manager never has the last copy */
#pragma once

#include <stddef.h>

/* The process that drops the last copy of a socket may have to wait for its peer; only a process that exits does not wait. Without a
 * keeper, systemd itself would drop the last copy of stored connections when it stops a service between two starts. A keeper outlives
 * us. The lease is a descriptor that is stored with the connections: the keeper exits after the service manager and the next
 * process have closed it.
 *
 * It is forked while the heap is small, and there are few descriptors. */

struct keeper;

/* Start a keeper. Returns NULL if that cannot be done: then there is none. */
struct keeper *keeper_new(void);

/* Without a lease, the keeper ends at once. */
struct keeper *keeper_free(struct keeper *keeper);

/* Make a lease. Returns the descriptor to store; it is the caller's. Or returns negative errno. KEEPER may be NULL. */
int keeper_lease(struct keeper *keeper);

/* Give the keeper copies of N descriptors, as many as it takes without waiting. KEEPER may be NULL. */
void keeper_keep(struct keeper *keeper, const int fds[], size_t n);
