/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon: shares out the descriptors, so that the descriptor table is never full */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct limits {
        uint64_t connections; /* parked or lent */
        uint64_t agents;
        uint64_t in_flight; /* descriptors that were sent to agents and may not have arrived */
        uint64_t leaving;   /* connections that wait for their peer after a farewell */
        uint64_t closing;   /* descriptors that wait to be closed, besides those that have been parked */
};

/* Return how many descriptors may be open: the soft limit. */
uint64_t limits_descriptors(void);

/* Raise the soft limit to the hard one. The kernel counts what is sent and not yet received against it, by user: also what agents of
 * former processes have never read, and what the daemon of another container sends. A hand-over must not fail for that. */
void limits_raise_for_handover(void);

/* Share out N_DESCRIPTORS, and keep a reserve for the daemon itself and for descriptors that come in. A wanted number of 0
 * takes as many as there are; another one is reduced if there are fewer. Each limit is at least 1. */
struct limits limits_share(uint64_t n_descriptors, uint64_t connections_wanted, uint64_t agents_wanted);
