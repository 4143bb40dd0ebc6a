/* daemon: how many descriptors everything may have, so that nothing ever finds the table full */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct limits {
        uint64_t connections; /* parked or lent */
        uint64_t agents;
        uint64_t leaving; /* connections that wait for their peer after a farewell */
};

/* Raise RLIMIT_NOFILE as far as the machine allows. Returns how many descriptors there may be then. */
uint64_t limits_raise(void);

/* Share out N_DESCRIPTORS, keeping a reserve for the daemon's own and for descriptors that come in. Settings
 * of 0 take what there is; others are kept unless there is less. Each limit is at least 1. */
struct limits limits_share(uint64_t n_descriptors, uint64_t connections_wanted, uint64_t agents_wanted);
