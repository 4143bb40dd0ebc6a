/* handover: everything parked goes through the service manager from one process of the daemon to the next */
#pragma once

#include "cache/cache.h"
#include "custody/statistics.h"
#include "custody/watch.h"
#include "daemon/journal.h"

struct passed;

/* What a hand-over is about. All of it is somebody else's. */
struct handover {
        struct cache *cache;
        struct custody *custody;
        struct statistics *statistics;
        struct journal *journal;
};

/* Give everything parked, and the statistics, to the service manager to be kept for the next process. Connections
 * that are stored leave the cache without a farewell; those that could not be stored stay in it. Does nothing where
 * there is no service manager or nothing is parked. */
void handover_save(const struct handover *handover);

/* Take back what a former process stored, and have the service manager forget it. Needs the cache and the custody,
 * and nobody in them yet. What cannot be used is closed, with a line in the journal. */
void handover_take(const struct handover *handover, struct passed *passed);
