/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* epochs: the epoch to which an agent belongs, and all that it parks */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct epoch {
        uint64_t id;             /* 0: none */
        const uint64_t *current; /* the latest epoch of the same line; NULL where there are no epochs */
};

/* The epoch of an agent of which it is not known under which configuration it runs: it is over. */
static inline struct epoch epoch_unknown(void) {
        static const uint64_t nobody = 1;

        return (struct epoch){ 0, &nobody };
}

/* Return whether an agent of a newer epoch has been seen: the agent finds nothing, and keeps nothing. */
static inline bool epoch_is_over(struct epoch epoch) {
        return epoch.current && *epoch.current != epoch.id;
}
