/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/cleanup.h"
#include "cache/cache.h"
#include "cache/entries.h"

void cache_cursor_rest(
        const struct cache *cache, struct cache_cursor *cursor, const struct connection *connection) {
        cursor->id = connection->id;
        cursor->cookie = socket_cookie(cache, connection);
}

/* The connection of an endpoint with which to go on. Where that behind which it was has gone, begin anew, and pass over those that
 * were visited: where connections leave in the order of their age, there are none. */
static struct connection *resume(
        const struct cache *cache, const struct label *endpoint, const struct cache_cursor *cursor) {
        struct connection *last = cursor->cookie != 0 ? socket_find(cache, cursor->cookie) : NULL;

        return last && last->state == CONNECTION_PARKED && last->endpoint == endpoint &&
                        last->id == cursor->id
                ? TAILQ_NEXT(last, siblings)
                : TAILQ_FIRST(&endpoint->connections);
}

/* Visit connections of an endpoint. What is passed over has a budget, too, so that no cursor makes a call long; where no socket is
 * known, which is not in the daemon, it has none, for nothing would be found again by it. Returns false at the end. */
static bool walk_endpoint(const struct cache *cache, const struct label *endpoint,
        struct cache_cursor *cursor, size_t budget, size_t *seen, cache_connection_fn fn, void *userdata) {
        struct connection *connection = resume(cache, endpoint, cursor), *last = NULL;
        size_t n_passed = 0;

        for (; connection; connection = TAILQ_NEXT(connection, siblings)) {
                bool is_new = connection->id > cursor->visited;

                if (is_new ? (*seen)++ >= budget : connection->has_socket && n_passed++ >= budget)
                        break;
                if (is_new) {
                        fn(userdata, connection);
                        cursor->visited = connection->id;
                }
                if (connection->has_socket)
                        last = connection;
        }

        if (last)
                cache_cursor_rest(cache, cursor, last);
        return connection;
}

bool cache_walk_connections(const struct cache *cache, struct cache_cursor *cursor, size_t budget,
        cache_connection_fn fn, void *userdata) {
        size_t seen = 0;

        while (cursor->bucket < cache->endpoints.table.n_buckets) {
                struct table_entry *entry = table_bucket(&cache->endpoints.table, cursor->bucket);

                /* Continue in the endpoint where the walk stopped. If it is gone, begin its bucket again. */
                while (cursor->within && entry && entry->hash != cursor->hash)
                        entry = entry->next;
                if (!entry && cursor->within) {
                        *cursor = (struct cache_cursor){ .bucket = cursor->bucket };
                        continue;
                }

                for (; entry; entry = entry->next) {
                        cursor->within = true;
                        cursor->hash = entry->hash;
                        if (walk_endpoint(cache, label_of(entry), cursor, budget, &seen, fn, userdata))
                                return true;
                        cursor->visited = cursor->id = cursor->cookie = 0;
                }

                *cursor = (struct cache_cursor){ .bucket = cursor->bucket + 1 };
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
