/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* handover: keeper: a process that has a copy of what the service manager stores, so that this never has the last one */
#pragma once

#include <stddef.h>

/* Whoever drops the last copy of a socket may have to wait for its peer. For what is stored, that would be the service manager,
 * when it is told to stop a service that has no process. A process that ends does not wait. So one of ours outlives us: it ends
 * when the service manager and the next process have closed the lease, which is stored with the rest.
 *
 * It is forked while the heap is small, and there are few descriptors. */

struct keeper;

/* Start a keeper. Returns NULL if that cannot be done: then there is none. */
struct keeper *keeper_new(void);

/* Without a lease, the keeper ends at once. */
struct keeper *keeper_free(struct keeper *keeper);

/* Make a lease. Returns the descriptor to be stored, which is the caller's, or negative errno. KEEPER may be NULL. */
int keeper_lease(struct keeper *keeper);

/* Give the keeper copies of N descriptors. Never waits: what it does not take is not kept. KEEPER may be NULL. */
void keeper_keep(struct keeper *keeper, const int fds[], size_t n);
