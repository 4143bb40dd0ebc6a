/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: everything that is needed to serve the requests of agents */
#pragma once

#include "cache/cache.h"
#include "custody/descriptor.h"
#include "custody/statistics.h"
#include "custody/watch.h"
#include "daemon/journal.h"
#include "daemon/loop.h"
#include "settings/settings.h"
#include "wire/buffer.h"

struct server {
        struct settings *settings;
        struct journal *journal;
        struct loop *loop;
        struct cache *cache;
        struct custody *custody;
        struct statistics statistics;
        struct descriptors *descriptors;
        struct wire_buffer scratch; /* for building an answer */
};
