/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/cache.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cache/entries.h"
#include "cache/reasons.h"

/* A lookup removes at most this many expired connections and then misses: a miss is cheap. */
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
                r = table_init(&cache->sockets);
        for (unsigned kind = 0; r >= 0 && kind < _LABEL_KIND_MAX; kind++)
                r = busiest_init(&cache->busiest[kind]);
        if (r >= 0)
                r = accounts_init(&cache->accounts, &cache->key);
        if (r < 0) {
                cache_free(cache);
                return r;
        }

        reasons_set_limit(cache);
        *ret = cache;
        return 0;
}

struct cache *cache_free(struct cache *cache) {
        struct binding *binding;

        if (!cache)
                return NULL;

        while ((binding = binding_of(deadlines_first(&cache->accounts.bindings))))
                binding_drop(cache, binding);

        assert(TAILQ_EMPTY(&cache->departed));
        reasons_deinit(cache);
        accounts_deinit(&cache->accounts);
        table_deinit(&cache->sockets);
        table_deinit(&cache->endpoints.table);
        table_deinit(&cache->destinations.table);
        free(cache);
        return NULL;
}

static void depart(struct cache *cache, struct connection *connection, enum departure why) {
        static const enum reason reasons[_DEPARTURE_MAX] = {
                [DEPARTURE_EXPIRED] = REASON_EXPIRED,
                [DEPARTURE_LIMIT] = REASON_EVICTED,
                [DEPARTURE_FLUSHED] = REASON_FLUSHED,
                [DEPARTURE_REPLACED] = REASON_REPLACED,
                [DEPARTURE_OUTDATED] = REASON_OUTDATED,
        };

        reasons_ended(cache, connection, reasons[why]);
        connection_forget(cache, connection);
        connection->departure = (uint8_t) why;
        TAILQ_INSERT_TAIL(&cache->departed, connection, siblings);
}

/* Return the parked connection that expires first, of one user or (NULL) of all, if it expires by UNTIL. A lent connection
 * that would come first is taken out of the order: it either stays with its agent, or departs when it comes back. */
static struct connection *first_parked(
        struct cache *cache, const struct account *account, uint64_t until_us) {
        struct connection *connection;

        while ((connection = connection_of(account ? deadline_set_first(&account->connections)
                                                   : deadlines_first(&cache->accounts.connections)))) {
                if (connection->deadline.at_us > until_us)
                        break;
                if (connection->state == CONNECTION_PARKED)
                        return connection;
                deadlines_remove(&connection->deadline);
        }

        return NULL;
}

void cache_let_go(struct cache *cache, struct connection *connection, enum departure why) {
        assert(connection->state == CONNECTION_PARKED);

        connection_unpark(cache, connection);
        depart(cache, connection, why);
}

static void end_binding(struct cache *cache, struct binding *binding, enum reason reason) {
        reasons_unbound(cache, binding, reason);
        binding_drop(cache, binding);
}

void cache_drop(struct cache *cache, struct binding *binding) {
        end_binding(cache, binding, REASON_OUTDATED);
}

bool cache_let_one_go(struct cache *cache, enum departure why) {
        struct connection *connection;

        connection = first_parked(cache, NULL, USEC_INFINITY);
        if (!connection)
                return false;

        cache_let_go(cache, connection, why);
        return true;
}

static void evict(struct cache *cache, struct connection *connection) {
        cache->gave_way = connection->uid;
        cache->counts.connections_let_go++;
        cache_let_go(cache, connection, DEPARTURE_LIMIT);
}

/* Evict the connection that expires first, of one user or (NULL) of all. */
static bool evict_connection(struct cache *cache, const struct account *account) {
        struct connection *connection = first_parked(cache, account, USEC_INFINITY);

        if (!connection)
                return false;

        evict(cache, connection);
        return true;
}

/* Evict the connection or binding that expires first. */
static bool evict_entry(struct cache *cache, const struct account *account) {
        struct binding *binding = binding_of(account ? deadline_set_first(&account->bindings)
                                                     : deadlines_first(&cache->accounts.bindings));
        struct connection *connection =
                first_parked(cache, account, binding ? binding->deadline.at_us : USEC_INFINITY);

        if (connection) {
                evict(cache, connection);
        } else if (binding) {
                cache->gave_way = account_of_binding(binding)->uid;
                end_binding(cache, binding, REASON_EVICTED);
                cache->counts.bindings_let_go++;
        }
        return connection || binding;
}

/* If users share, labels belong to nobody, and the account that they are charged to has no entries. */
static bool has_entries(const struct account *account) {
        return account_held(account, ACCOUNT_CONNECTIONS) > 0 || deadline_set_first(&account->bindings);
}

/* Evict one entry, so that USER may hold N more of KIND, or (NULL) to enforce the limit. It is one of the user who then holds
 * most; if all of these are lent, one of the other candidate, USER or the one who holds most now, but not below an equal
 * share. Returns false if there is none: lent connections are soon returned or gone, and until then the limit is exceeded by
 * at most the share of USER. */
static bool evict_one(struct cache *cache, enum account_kind kind, uint64_t limit, struct account *user,
        uint64_t n, bool (*evict_from)(struct cache *cache, const struct account *account)) {
        struct account *most = accounts_most(&cache->accounts, kind), *first = most, *second = user;

        if (!most)
                return false;
        if (user && account_held(user, kind) + n >= account_held(most, kind)) {
                first = user;
                second = account_held(most, kind) > account_held(user, kind) ? most : user;
        }
        if (evict_from(cache, first))
                return true;
        if (!user || (first == most && !has_entries(most)))
                return evict_from(cache, NULL);
        return second != first && !account_is_modest(&cache->accounts, second, kind, limit) &&
                evict_from(cache, second);
}

/* Evict connections until a user, or NULL for nobody, may have N more. */
static void make_room_for_connections(struct cache *cache, struct account *user, uint64_t n) {
        uint64_t limit = cache->limits.connections;

        while (limit > 0 && cache->counts.connections + cache->counts.lent + n > limit)
                if (!evict_one(cache, ACCOUNT_CONNECTIONS, limit, user, n, evict_connection))
                        break;
}

/* Evict entries until a user, or NULL for nobody, may have N more bytes. */
static void make_room(struct cache *cache, struct account *user, uint64_t n) {
        uint64_t limit = cache->limits.bytes;

        while (limit > 0 && cache->counts.bytes + cache->counts.history_bytes + n > limit)
                if (!evict_one(cache, ACCOUNT_BYTES, limit, user, n, evict_entry))
                        break;
}

void cache_set_limits(struct cache *cache, const struct cache_limits *limits) {
        cache->limits = *limits;
        reasons_set_limit(cache);
        make_room_for_connections(cache, NULL, 0);
        make_room(cache, NULL, 0);
}

const struct cache_counts *cache_counts(const struct cache *cache) {
        return &cache->counts;
}

struct accounts *cache_accounts(struct cache *cache) {
        return &cache->accounts;
}

uid_t cache_gave_way(const struct cache *cache) {
        return cache->gave_way;
}

/* End the connection that already has the socket which is saved now. No farewell may be sent on this socket, even if the save
 * fails: then the agent still uses it. */
static int replace(struct cache *cache, const struct connection_details *details) {
        struct connection *former = details->cookie != 0 ? socket_find(cache, details->cookie) : NULL;

        if (!former)
                return 0;
        if (former->uid != details->saved_by)
                return -EEXIST;

        if (former->state == CONNECTION_PARKED) {
                cache_let_go(cache, former, DEPARTURE_REPLACED);
        } else {
                socket_forget(cache, former);
                former->departure = DEPARTURE_REPLACED; /* when it comes back */
        }
        return 0;
}

int cache_save_endpoint(
        struct cache *cache, const struct connection_details *details, struct connection **ret) {
        struct account *account;
        int r;

        r = accounts_hold(&cache->accounts, details->saved_by, &account);
        if (r < 0)
                return r;

        reasons_grow(cache);
        r = replace(cache, details);
        if (r >= 0) {
                make_room_for_connections(cache, account, 1);
                make_room(cache, account,
                        connection_bytes(details->property.size, details->farewell.size) +
                                label_bytes(details->endpoint.size));
                r = connection_new(cache, account, details, ret);
                if (r >= 0)
                        reasons_parked(cache, (*ret)->endpoint);
        }
        account_release(&cache->accounts, account);
        return r;
}

/* At the limit of a destination, evict its binding that expires first. */
static void make_room_at(struct cache *cache, struct label *destination) {
        struct binding *first = TAILQ_FIRST(&destination->bindings), *binding;

        if (destination->n_holders < CACHE_DESTINATION_BINDINGS_MAX)
                return;

        TAILQ_FOREACH (binding, &destination->bindings, siblings)
                if (binding->deadline.at_us < first->deadline.at_us)
                        first = binding;
        cache->gave_way = account_of_binding(first)->uid;
        cache->counts.bindings_let_go++;
        end_binding(cache, first, REASON_EVICTED);
}

static int save_binding(
        struct cache *cache, struct account *account, const struct binding_details *details) {
        struct label *destination;
        struct binding *binding;
        int r;

        destination = label_find(cache, &cache->destinations, details->scope, details->destination);
        binding =
                destination ? binding_find(cache, destination, details->endpoint, details->property) : NULL;
        if (binding) {
                cache->endpoints.recent = binding->endpoint;
                return binding_renew(cache, binding, account, details->ttl_us, details->deadline_us);
        }

        if (destination)
                make_room_at(cache, destination);
        reasons_grow(cache);
        make_room(cache, account,
                binding_bytes(details->property.size) + label_bytes(details->destination.size) +
                        label_bytes(details->endpoint.size));
        r = binding_new(cache, account, details, &binding);
        if (r >= 0)
                reasons_bound(cache, binding);
        return r;
}

int cache_save_destination(struct cache *cache, const struct binding_details *details) {
        struct account *account;
        int r;

        r = accounts_hold(&cache->accounts, details->saved_by, &account);
        if (r < 0)
                return r;

        r = save_binding(cache, account, details);
        account_release(&cache->accounts, account);
        return r;
}

/* Lend the first connection of an endpoint that has not ended, to who looks for the endpoint, or a destination. */
static struct connection *lend(struct cache *cache, struct label *endpoint, struct label *destination) {
        uint64_t now_us = cache->now_us;
        struct connection *connection;
        bool is_last;

        for (unsigned i = 0; i < EXPIRED_PER_LOOKUP; i++) {
                connection = TAILQ_FIRST(&endpoint->connections);
                if (!connection)
                        break;

                connection_unpark(cache, connection);
                if (connection->deadline.at_us > now_us) {
                        deadline_prefetch(&connection->deadline);
                        if (connection->has_socket)
                                table_prefetch(&cache->sockets, &connection->by_socket);
                        __builtin_prefetch(connection->bytes);
                        connection->state = CONNECTION_LENT;
                        cache->counts.lent++;
                        reasons_found(cache, destination, connection);
                        return connection;
                }

                /* Without bindings, the endpoint is freed with its last connection. */
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

        cache->now_us = now_us;
        return endpoint ? lend(cache, endpoint, NULL) : NULL;
}

struct connection *cache_find_destination(struct cache *cache, struct scope scope,
        struct slice destination_label, uint64_t now_us, struct slice *ret_property) {
        struct label *destination = label_find(cache, &cache->destinations, scope, destination_label);
        struct binding *binding;

        if (!destination)
                return NULL;

        cache->now_us = now_us;
        cache->destinations.recent = destination;
        TAILQ_FOREACH (binding, &destination->bindings, siblings) {
                struct connection *connection;

                /* Expired bindings are skipped here; cache_expire() drops them. */
                if (binding->deadline.at_us <= now_us)
                        continue;

                /* An agent that finds a connection usually renews the binding afterwards. */
                deadline_prefetch(&binding->deadline);
                connection = lend(cache, binding->endpoint, destination);
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

        cache->now_us = now_us;
        cache->counts.lent--;
        if (connection->departure == DEPARTURE_REPLACED)
                depart(cache, connection, DEPARTURE_REPLACED);
        else if (connection->deadline.at_us <= now_us)
                depart(cache, connection, DEPARTURE_EXPIRED);
        else if (!connection->deadline.queue)
                depart(cache, connection, DEPARTURE_LIMIT); /* it was to be evicted while it was lent */
        else
                connection_park(cache, connection);
}

void cache_remove(struct cache *cache, struct connection *connection) {
        assert(connection->state == CONNECTION_PARKED);

        connection_unpark(cache, connection);
        connection_forget(cache, connection);
}

void cache_bury(struct cache *cache, struct connection *connection) {
        reasons_ended(cache, connection, REASON_DEAD);
        cache_remove(cache, connection);
}

bool cache_expire(struct cache *cache, uint64_t now_us, unsigned budget) {
        cache->now_us = now_us;
        for (; budget > 0; budget--) {
                struct connection *connection = first_parked(cache, NULL, now_us);

                if (!connection)
                        break;
                cache_let_go(cache, connection, DEPARTURE_EXPIRED);
        }

        for (; budget > 0; budget--) {
                struct binding *binding = binding_of(deadlines_first(&cache->accounts.bindings));

                if (!binding || binding->deadline.at_us > now_us)
                        break;
                end_binding(cache, binding, REASON_EXPIRED);
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
        const struct deadline *connection = deadlines_first(&cache->accounts.connections);
        const struct deadline *binding = deadlines_first(&cache->accounts.bindings);

        return MIN(connection ? connection->at_us : USEC_INFINITY, binding ? binding->at_us : USEC_INFINITY);
}

struct connection *connection_free(struct connection *connection) {
        free(connection);
        return NULL;
}
