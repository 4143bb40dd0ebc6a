/* agents: what the parts of the running daemon share */
#pragma once

#include <sys/types.h>

#include "cache/cache.h"
#include "custody/statistics.h"
#include "custody/watch.h"
#include "daemon/journal.h"
#include "daemon/loop.h"
#include "settings/settings.h"
#include "wire/buffer.h"

struct agents;
struct disposal;
struct status;

struct server {
        struct settings *settings;
        struct journal *journal;
        struct loop *loop;
        struct cache *cache;
        struct custody *custody;
        struct disposal *disposal;
        struct agents *agents;
        struct status *status;
        struct statistics statistics;
        struct wire_buffer scratch; /* where answers are put together */
};
