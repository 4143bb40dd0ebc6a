/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/cache.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cache/entries.h"

/* A lookup that meets connections past their end clears that many away and then gives up: a miss is cheap. */
#define EXPIRED_PER_LOOKUP 64

int cache_new(struct cache **ret, const struct siphash_key *key, const struct cache_limits *limits) {
        struct cache *cache;
        int r;

        cache = calloc(1, sizeof(*cache));
        if (!cache)
                return -ENOMEM;

        cache->key = *key;
        cache->limits = *limits;
        TAILQ_INIT(&cache->departed);

        r = table_init(&cache->endpoints.table);
        if (r >= 0)
                r = table_init(&cache->destinations.table);
        if (r >= 0)
                r = deadlines_init(&cache->connection_deadlines, &cache->key);
        if (r >= 0)
                r = deadlines_init(&cache->binding_deadlines, &cache->key);
        if (r < 0) {
                cache_free(cache);
                return r;
        }

        *ret = cache;
        return 0;
}

struct cache *cache_free(struct cache *cache) {
        struct binding *binding;

        if (!cache)
                return NULL;

        while ((binding = binding_of(deadlines_first(&cache->binding_deadlines))))
                binding_drop(cache, binding);

        assert(TAILQ_EMPTY(&cache->departed));
        deadlines_deinit(&cache->connection_deadlines);
        deadlines_deinit(&cache->binding_deadlines);
        table_deinit(&cache->endpoints.table);
        table_deinit(&cache->destinations.table);
        free(cache);
        return NULL;
}

static void depart(struct cache *cache, struct connection *connection, enum departure why) {
        connection_forget(cache, connection);
        connection->departure = (uint8_t) why;
        TAILQ_INSERT_TAIL(&cache->departed, connection, siblings);
}

/* The parked connection nearest to its end, if that comes by UNTIL. A lent one whose turn it would be loses its place in
 * this order: it either goes for good or departs when it comes back. */
static struct connection *first_parked(struct cache *cache, uint64_t until_us) {
        struct connection *connection;

        while ((connection = connection_of(deadlines_first(&cache->connection_deadlines)))) {
                if (connection->deadline.at_us > until_us)
                        break;
                if (connection->state == CONNECTION_PARKED)
                        return connection;
                deadlines_remove(&cache->connection_deadlines, &connection->deadline);
        }

        return NULL;
}

void cache_let_go(struct cache *cache, struct connection *connection, enum departure why) {
        assert(connection->state == CONNECTION_PARKED);

        connection_unpark(cache, connection);
        depart(cache, connection, why);
}

void cache_drop(struct cache *cache, struct binding *binding) {
        binding_drop(cache, binding);
}

bool cache_let_one_go(struct cache *cache, enum departure why) {
        struct connection *connection = first_parked(cache, USEC_INFINITY);

        if (!connection)
                return false;

        cache_let_go(cache, connection, why);
        return true;
}

/* Let connections go until N more may be had. */
static void make_room_for_connections(struct cache *cache, uint64_t n) {
        while (cache->limits.connections > 0 &&
                cache->counts.connections + cache->counts.lent + n > cache->limits.connections)
                if (!cache_let_one_go(cache, DEPARTURE_LIMIT))
                        break;
}

/* Let entries go until N more bytes fit. */
static void make_room(struct cache *cache, uint64_t n) {
        while (cache->limits.bytes > 0 && cache->counts.bytes + n > cache->limits.bytes) {
                struct binding *binding = binding_of(deadlines_first(&cache->binding_deadlines));
                struct connection *connection =
                        first_parked(cache, binding ? binding->deadline.at_us : USEC_INFINITY);

                if (connection) {
                        cache_let_go(cache, connection, DEPARTURE_LIMIT);
                } else if (binding) {
                        binding_drop(cache, binding);
                        cache->counts.bindings_let_go++;
                } else
                        break;
        }
}

void cache_set_limits(struct cache *cache, const struct cache_limits *limits) {
        cache->limits = *limits;
        make_room_for_connections(cache, 0);
        make_room(cache, 0);
}

const struct cache_counts *cache_counts(const struct cache *cache) {
        return &cache->counts;
}

int cache_save_endpoint(
        struct cache *cache, const struct connection_details *details, struct connection **ret) {
        make_room_for_connections(cache, 1);
        make_room(cache,
                connection_bytes(details->property.size, details->farewell.size) +
                        label_bytes(details->endpoint.size));

        return connection_new(cache, details, ret);
}

/* A destination at its own limit gives up the binding nearest to its end. */
static void make_room_at(struct cache *cache, struct label *destination) {
        struct binding *first = TAILQ_FIRST(&destination->bindings), *binding;

        if (destination->n_holders < CACHE_DESTINATION_BINDINGS_MAX)
                return;

        TAILQ_FOREACH (binding, &destination->bindings, siblings)
                if (binding->deadline.at_us < first->deadline.at_us)
                        first = binding;
        binding_drop(cache, first);
        cache->counts.bindings_let_go++;
}

int cache_save_destination(struct cache *cache, const struct binding_details *details) {
        struct label *destination;

        destination = label_find(cache, &cache->destinations, details->scope, details->destination);
        if (destination) {
                struct binding *binding =
                        binding_find(cache, destination, details->endpoint, details->property);

                if (binding) {
                        cache->endpoints.recent = binding->endpoint;
                        return deadlines_set(&cache->binding_deadlines, &binding->deadline, details->ttl_us,
                                details->deadline_us);
                }

                make_room_at(cache, destination);
        }

        make_room(cache,
                binding_bytes(details->property.size) + label_bytes(details->destination.size) +
                        label_bytes(details->endpoint.size));

        return binding_new(cache, details);
}

/* Lend the first connection of an endpoint that has not ended. */
static struct connection *lend(struct cache *cache, struct label *endpoint, uint64_t now_us) {
        struct connection *connection;
        bool is_last;

        for (unsigned i = 0; i < EXPIRED_PER_LOOKUP; i++) {
                connection = TAILQ_FIRST(&endpoint->connections);
                if (!connection)
                        break;

                connection_unpark(cache, connection);
                if (connection->deadline.at_us > now_us) {
                        deadline_prefetch(&connection->deadline);
                        __builtin_prefetch(connection->bytes);
                        connection->state = CONNECTION_LENT;
                        cache->counts.lent++;
                        return connection;
                }

                /* The last one takes the endpoint along where no binding holds it. */
                is_last = endpoint->n_holders == 1;
                depart(cache, connection, DEPARTURE_EXPIRED);
                if (is_last)
                        break;
        }

        return NULL;
}

struct connection *cache_find_endpoint(
        struct cache *cache, struct scope scope, struct slice endpoint_label, uint64_t now_us) {
        struct label *endpoint = label_find(cache, &cache->endpoints, scope, endpoint_label);

        return endpoint ? lend(cache, endpoint, now_us) : NULL;
}

struct connection *cache_find_destination(struct cache *cache, struct scope scope,
        struct slice destination_label, uint64_t now_us, struct slice *ret_property) {
        struct label *destination = label_find(cache, &cache->destinations, scope, destination_label);
        struct binding *binding;

        if (!destination)
                return NULL;

        cache->destinations.recent = destination;
        TAILQ_FOREACH (binding, &destination->bindings, siblings) {
                struct connection *connection;

                /* Where an end has passed, cache_expire() will come by: here it is just not seen. */
                if (binding->deadline.at_us <= now_us)
                        continue;

                /* Who finds a connection saves its binding again with it. */
                deadline_prefetch(&binding->deadline);
                connection = lend(cache, binding->endpoint, now_us);
                if (connection) {
                        *ret_property = binding_property(binding);
                        return connection;
                }
        }

        return NULL;
}

void cache_give(struct cache *cache, struct connection *connection) {
        assert(connection->state == CONNECTION_LENT);

        cache->counts.lent--;
        connection_forget(cache, connection);
}

void cache_take_back(struct cache *cache, struct connection *connection, uint64_t now_us) {
        assert(connection->state == CONNECTION_LENT);

        cache->counts.lent--;
        if (connection->deadline.at_us <= now_us)
                depart(cache, connection, DEPARTURE_EXPIRED);
        else if (!connection->deadline.queue)
                depart(cache, connection, DEPARTURE_LIMIT); /* its turn came while it was away */
        else
                connection_park(cache, connection);
}

void cache_remove(struct cache *cache, struct connection *connection) {
        assert(connection->state == CONNECTION_PARKED);

        connection_unpark(cache, connection);
        connection_forget(cache, connection);
}

bool cache_expire(struct cache *cache, uint64_t now_us, unsigned budget) {
        for (; budget > 0; budget--) {
                struct connection *connection = first_parked(cache, now_us);

                if (!connection)
                        break;
                cache_let_go(cache, connection, DEPARTURE_EXPIRED);
        }

        for (; budget > 0; budget--) {
                struct binding *binding = binding_of(deadlines_first(&cache->binding_deadlines));

                if (!binding || binding->deadline.at_us > now_us)
                        break;
                binding_drop(cache, binding);
        }

        return budget == 0;
}

struct connection *cache_next_departed(struct cache *cache) {
        struct connection *connection = TAILQ_FIRST(&cache->departed);

        if (connection)
                TAILQ_REMOVE(&cache->departed, connection, siblings);
        return connection;
}

uint64_t cache_next_deadline(const struct cache *cache) {
        const struct deadline *connection = deadlines_first(&cache->connection_deadlines);
        const struct deadline *binding = deadlines_first(&cache->binding_deadlines);

        return MIN(connection ? connection->at_us : USEC_INFINITY, binding ? binding->at_us : USEC_INFINITY);
}

struct connection *connection_free(struct connection *connection) {
        free(connection);
        return NULL;
}
