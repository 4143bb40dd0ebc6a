/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/cleanup.h"
#include "cache/cache.h"
#include "cache/entries.h"

bool cache_walk_connections(const struct cache *cache, struct cache_cursor *cursor, size_t budget,
        cache_connection_fn fn, void *userdata) {
        size_t seen = 0;

        while (cursor->bucket < cache->endpoints.table.n_buckets) {
                struct table_entry *entry = table_bucket(&cache->endpoints.table, cursor->bucket);

                /* Continue in the endpoint where the walk stopped. If it is gone, begin its bucket again. */
                while (cursor->within && entry && entry->hash != cursor->hash)
                        entry = entry->next;
                if (!entry && cursor->within) {
                        cursor->within = false;
                        cursor->id = 0;
                        continue;
                }

                for (; entry; entry = entry->next) {
                        struct label *endpoint = label_of(entry);
                        struct connection *connection;

                        cursor->within = true;
                        cursor->hash = entry->hash;
                        TAILQ_FOREACH (connection, &endpoint->connections, siblings) {
                                if (connection->id <= cursor->id)
                                        continue;
                                if (seen++ >= budget)
                                        return true;
                                fn(userdata, connection);
                                cursor->id = connection->id;
                        }
                        cursor->id = 0;
                }

                cursor->within = false;
                cursor->bucket++;
                if (seen++ >= budget)
                        return true;
        }

        return false;
}

bool cache_walk_bindings(const struct cache *cache, struct cache_cursor *cursor, size_t budget,
        cache_binding_fn fn, void *userdata) {
        for (size_t seen = 0; cursor->bucket < cache->destinations.table.n_buckets;
                cursor->bucket++, seen++) {
                if (seen >= budget)
                        return true;

                /* The number of bindings of a destination is limited, so a bucket is never too much at once. */
                for (struct table_entry *entry = table_bucket(&cache->destinations.table, cursor->bucket);
                        entry; entry = entry->next) {
                        struct label *destination = label_of(entry);
                        struct binding *binding;

                        TAILQ_FOREACH (binding, &destination->bindings, siblings) {
                                fn(userdata, binding);
                                seen++;
                        }
                }
        }

        return false;
}
