/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/rendezvous.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/siphash.h"

/* Never change the key or the text of a lot: hosts of different releases must agree. */
static const struct siphash_key key = { UINT64_C(0x7363616368656420), UINT64_C(0x666c656574206b65) };

#define LOT_MAX (2 * RENDEZVOUS_NAME_MAX + sizeof("  100"))

static uint64_t draw(const char *destination, const char *host, unsigned number) {
        char lot[LOT_MAX];
        int n = snprintf(lot, sizeof(lot), "%s %s %u", destination, host, number);

        return siphash13(&key, (struct slice){ lot, (size_t) n });
}

/* For equal lots, the name decides, so that the order of the hosts never matters. */
static bool is_better(uint64_t lot, const char *host, uint64_t best_lot, const char *best_host) {
        return lot > best_lot || (lot == best_lot && strcmp(host, best_host) < 0);
}

size_t rendezvous_choose(const struct rendezvous_host *hosts, size_t n_hosts, const char *destination) {
        uint64_t best_lot = 0;
        size_t best = n_hosts;

        for (size_t i = 0; i < n_hosts; i++)
                for (unsigned number = 0; number < hosts[i].weight; number++) {
                        uint64_t lot = draw(destination, hosts[i].name, number);

                        if (best == n_hosts || is_better(lot, hosts[i].name, best_lot, hosts[best].name)) {
                                best_lot = lot;
                                best = i;
                        }
                }

        return best;
}
