/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* handover: passes everything parked through the service manager from one process of the daemon to the next */
#pragma once

#include "cache/cache.h"
#include "custody/statistics.h"
#include "custody/watch.h"
#include "daemon/journal.h"
#include "daemon/notify.h"

struct passed;

/* The parts of a hand-over, which it does not own. */
struct handover {
        struct cache *cache;
        struct custody *custody;
        struct disposal *disposal;
        struct statistics *statistics;
        struct journal *journal;
        struct notify *notify;
};

/* Store everything parked, and the statistics, in the service manager for the next process. Connections that are stored
 * leave the cache without a farewell; those that could not be stored stay in it. Does nothing without a service manager,
 * or if nothing is parked. */
void handover_save(const struct handover *handover);

/* Restore everything that the process before stored, and remove it from the service manager. The cache and the custody must
 * still be empty. A connection that cannot be restored is closed, with a line in the journal. */
void handover_take(const struct handover *handover, struct passed *passed);
