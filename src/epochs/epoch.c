/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "epochs/epoch.h"

#include "base/siphash.h"

uint64_t epoch_named(struct epoch epoch, struct slice name) {
        /* Not secret, and the same in each process: an epoch outlives the daemon. */
        const struct siphash_key key = { UINT64_C(0x6e616d6564206570) ^ epoch.id,
                UINT64_C(0x6f6368206b657921) };

        return (siphash13(&key, name) >> (64 - EPOCH_LINE_SHIFT)) | 1;
}
