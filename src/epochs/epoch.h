/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* epochs: the epoch to which an agent belongs, and all that it parks */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

/* All that the processes of one service of one instance of Postfix are, one after the other, is a line of epochs. An epoch has
 * the line in its upper bits and the state of the files in its lower ones. It is the same in the next process of the daemon. */
#define EPOCH_LINE_SHIFT 40

static inline uint64_t epoch_line(uint64_t id) {
        return id >> EPOCH_LINE_SHIFT;
}

struct epoch {
        uint64_t id;             /* 0: none */
        const uint64_t *current; /* the latest epoch of the same line; NULL where there are no epochs */
};

/* The epoch of an agent of which it is not known under which configuration it runs: it is over. */
static inline struct epoch epoch_unknown(void) {
        static const uint64_t nobody = 1;

        return (struct epoch){ 0, &nobody };
}

/* Return the id of an epoch that an agent of EPOCH names itself. It is of no line, so that none is newer than another. */
uint64_t epoch_named(struct epoch epoch, struct slice name);

/* Return whether an agent of a newer epoch has been seen: the agent finds nothing, and keeps nothing. */
static inline bool epoch_is_over(struct epoch epoch) {
        return epoch.current && *epoch.current != epoch.id;
}
