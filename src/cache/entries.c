/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/entries.h"

#include <errno.h>
#include <stdlib.h>

/* The average overhead of malloc(3) for a block, header and rounding, in bytes. */
#define BLOCK_OVERHEAD 16

/* Properties of bindings of this size or more are compared by a hash first. */
#define LONG_PROPERTY 256

uint64_t label_bytes(size_t size) {
        return sizeof(struct label) + size + 1 + BLOCK_OVERHEAD;
}

uint64_t binding_bytes(size_t property_size) {
        return sizeof(struct binding) + property_size + 1 + BLOCK_OVERHEAD;
}

uint64_t connection_bytes(size_t property_size, size_t farewell_size) {
        return sizeof(struct connection) + property_size + farewell_size + 2 + BLOCK_OVERHEAD;
}

/* The key for a lookup of a label. */
struct label_key {
        struct scope scope;
        struct slice text;
};

/* The scope is spread over the hash, not hashed: it is not chosen by whoever chooses labels. */
#define SPREAD UINT64_C(0x9e3779b97f4a7c15)

static uint64_t label_hash(const struct cache *cache, struct scope scope, struct slice text) {
        return siphash13(&cache->key, text) + (scope.uid + scope.epoch) * SPREAD;
}

/* Makes the key of a destination another one than that of the endpoint of the same name. */
static const uint64_t key_of_kind[_LABEL_KIND_MAX] = { [LABEL_DESTINATION] = UINT64_C(0xd6e8feb86659fd93) };

uint64_t label_key_of(const struct cache *cache, enum label_kind kind, uid_t uid, struct slice text) {
        return label_hash(cache, (struct scope){ .uid = uid }, text) ^ key_of_kind[kind];
}

uint64_t label_key(const struct label *label, enum label_kind kind) {
        return (label->by_text.hash - label->scope.epoch * SPREAD) ^ key_of_kind[kind];
}

/* The key is a hash of 64 bits, and a secret: labels that have the same one do not come by. */
static bool key_matches(_unused_ const struct table_entry *entry, _unused_ const void *key) {
        return true;
}

struct label *label_find_key(const struct cache *cache, enum label_kind kind, uint64_t key, uint64_t epoch) {
        const struct labels *labels = kind == LABEL_ENDPOINT ? &cache->endpoints : &cache->destinations;

        return label_of(
                table_find(&labels->table, (key ^ key_of_kind[kind]) + epoch * SPREAD, key_matches, NULL));
}

static bool label_matches(const struct table_entry *entry, const void *key) {
        const struct label *label = label_of((struct table_entry *) entry);
        const struct label_key *k = key;

        return scope_equal(label->scope, k->scope) && slice_equal(label_text(label), k->text);
}

struct label *label_find(
        const struct cache *cache, const struct labels *labels, struct scope scope, struct slice text) {
        const struct label_key key = { scope, text };

        if (labels->recent && label_matches(&labels->recent->by_text, &key))
                return labels->recent;

        return label_of(table_find(&labels->table, label_hash(cache, scope, text), label_matches, &key));
}

static uint32_t property_hash(const struct cache *cache, struct slice property) {
        return property.size >= LONG_PROPERTY ? (uint32_t) siphash13(&cache->key, property) : 0;
}

struct binding *binding_find(const struct cache *cache, const struct label *destination,
        struct slice endpoint, struct slice property) {
        uint32_t hash = property_hash(cache, property);
        struct binding *binding;

        /* Endpoints are compared by label: to look the endpoint up first would cost more than most of these walks. */
        TAILQ_FOREACH (binding, &destination->bindings, siblings)
                if (binding->property_hash == hash && slice_equal(binding_property(binding), property) &&
                        slice_equal(label_text(binding->endpoint), endpoint))
                        return binding;

        return NULL;
}

/* All copies of a socket have the same cookie. The kernel counts cookies up, so a user who makes many sockets can choose among
 * them: the hash needs a secret. It is a bijection, so that the cookie itself need not be kept. */
static uint64_t socket_hash(const struct cache *cache, uint64_t cookie) {
        uint64_t hash = (cookie ^ cache->key.k0) * (cache->key.k1 | 1);

        return hash ^ hash >> 32;
}

/* The way back: it inverts the factor modulo 2^64 by Newton's method, which doubles the right bits in each step, from 5. */
uint64_t socket_cookie(const struct cache *cache, const struct connection *connection) {
        uint64_t hash = connection->by_socket.hash, factor = cache->key.k1 | 1, inverse = 3 * factor ^ 2;

        if (!connection->has_socket)
                return 0;

        for (unsigned bits = 5; bits < 64; bits *= 2)
                inverse *= 2 - factor * inverse;
        return (hash ^ hash >> 32) * inverse ^ cache->key.k0;
}

static bool socket_matches(_unused_ const struct table_entry *entry, _unused_ const void *key) {
        return true;
}

struct connection *socket_find(const struct cache *cache, uint64_t cookie) {
        struct table_entry *entry;

        entry = table_find(&cache->sockets, socket_hash(cache, cookie), socket_matches, NULL);
        return entry ? CONTAINER_OF(entry, struct connection, by_socket) : NULL;
}

void socket_forget(struct cache *cache, struct connection *connection) {
        if (!connection->has_socket)
                return;

        table_remove(&cache->sockets, &connection->by_socket);
        connection->has_socket = false;
}

static char *put_string(char *to, struct slice bytes) {
        if (bytes.size > 0)
                to = mempcpy(to, bytes.data, bytes.size);
        *to++ = 0;
        return to;
}

/* Find or make a label, and hold it. */
static int label_hold(struct cache *cache, struct labels *labels, struct scope scope, struct slice text,
        struct label **ret) {
        struct label *label = label_find(cache, labels, scope, text);
        struct account *account;
        int r;

        if (!label) {
                r = accounts_hold(&cache->accounts, scope.uid, &account);
                if (r < 0)
                        return r;

                label = malloc(sizeof(*label) + text.size + 1);
                if (!label) {
                        account_release(&cache->accounts, account);
                        return -ENOMEM;
                }

                if (labels == &cache->endpoints)
                        TAILQ_INIT(&label->connections);
                else
                        TAILQ_INIT(&label->bindings);
                label->scope = scope;
                label->size = (uint32_t) text.size;
                label->n_holders = label->n_parked = label->row = 0;
                label->last = 0;
                put_string(label->text, text);
                table_add(&labels->table, &label->by_text, label_hash(cache, scope, text));
                cache->counts.bytes += label_bytes(text.size);
                account_charge(&cache->accounts, account, ACCOUNT_BYTES, label_bytes(text.size));
                account_release(&cache->accounts, account);
        }

        label->n_holders++;
        labels->recent = label;
        *ret = label;
        return 0;
}

static void label_release(struct cache *cache, struct labels *labels, struct label *label) {
        if (--label->n_holders > 0)
                return;

        if (labels->recent == label)
                labels->recent = NULL;
        if (label->last != 0)
                past_note(&cache->past, label_key(label, LABEL_ENDPOINT), label->last, 0);
        table_remove(&labels->table, &label->by_text);
        cache->counts.bytes -= label_bytes(label->size);
        account_discharge(&cache->accounts, accounts_find(&cache->accounts, label->scope.uid), ACCOUNT_BYTES,
                label_bytes(label->size));
        free(label);
}

void connection_park(struct cache *cache, struct connection *connection) {
        struct label *endpoint = connection->endpoint;
        struct connection *after = NULL;

        if (TAILQ_EMPTY(&endpoint->connections))
                cache->counts.endpoints++;
        else if (TAILQ_LAST(&endpoint->connections, connection_list)->id > connection->id)
                /* It comes back from an agent, and was the oldest one when it was lent. */
                TAILQ_FOREACH (after, &endpoint->connections, siblings)
                        if (after->id > connection->id)
                                break;

        if (after)
                TAILQ_INSERT_BEFORE(after, connection, siblings);
        else
                TAILQ_INSERT_TAIL(&endpoint->connections, connection, siblings);

        connection->state = CONNECTION_PARKED;
        endpoint->n_parked++;
        cache->counts.connections++;
}

void connection_unpark(struct cache *cache, struct connection *connection) {
        struct label *endpoint = connection->endpoint;

        TAILQ_REMOVE(&endpoint->connections, connection, siblings);
        endpoint->n_parked--;
        cache->counts.connections--;
        if (TAILQ_EMPTY(&endpoint->connections))
                cache->counts.endpoints--;
}

void connection_forget(struct cache *cache, struct connection *connection) {
        uint64_t bytes = connection_bytes(connection->property_size, connection->farewell_size);
        struct account *account = accounts_find(&cache->accounts, connection->uid);

        socket_forget(cache, connection);
        deadlines_remove(&connection->deadline);
        cache->counts.bytes -= bytes;
        /* The second call may free the account; until then the connection keeps it. */
        account_discharge(&cache->accounts, account, ACCOUNT_BYTES, bytes);
        account_discharge(&cache->accounts, account, ACCOUNT_CONNECTIONS, 1);
        label_release(cache, &cache->endpoints, STEAL(connection->endpoint));
        connection->state = CONNECTION_DEPARTED;
}

/* Ids order entries by age. Entries restored from a former process keep their ids. */
static uint64_t take_id(struct cache *cache, uint64_t id) {
        if (id == 0)
                return ++cache->last_id;

        cache->last_id = MAX(cache->last_id, id);
        return id;
}

int connection_new(struct cache *cache, struct account *account, const struct connection_details *details,
        struct connection **ret) {
        uint64_t bytes = connection_bytes(details->property.size, details->farewell.size);
        _cleanup_(freep) struct connection *connection = NULL;
        int r;

        connection = malloc(sizeof(*connection) + details->property.size + details->farewell.size + 2);
        if (!connection)
                return -ENOMEM;

        *connection = (struct connection){
                .fd = details->fd,
                .uid = details->saved_by,
                .property_size = (uint32_t) details->property.size,
                .farewell_size = (uint32_t) details->farewell.size,
        };
        put_string(put_string(connection->bytes, details->property), details->farewell);

        r = label_hold(cache, &cache->endpoints, details->scope, details->endpoint, &connection->endpoint);
        if (r < 0)
                return r;

        r = deadlines_add(
                &account->connections, &connection->deadline, details->ttl_us, details->deadline_us);
        if (r < 0) {
                label_release(cache, &cache->endpoints, connection->endpoint);
                return r;
        }

        connection->id = take_id(cache, details->id);
        if (details->cookie != 0) {
                table_add(&cache->sockets, &connection->by_socket, socket_hash(cache, details->cookie));
                connection->has_socket = true;
        }
        cache->counts.bytes += bytes;
        account_charge(&cache->accounts, account, ACCOUNT_BYTES, bytes);
        account_charge(&cache->accounts, account, ACCOUNT_CONNECTIONS, 1);
        connection_park(cache, connection);
        *ret = STEAL(connection);
        return 0;
}

int binding_new(struct cache *cache, struct account *account, const struct binding_details *details,
        struct binding **ret) {
        uint64_t bytes = binding_bytes(details->property.size);
        _cleanup_(freep) struct binding *binding = NULL;
        struct binding *before;
        int r;

        binding = malloc(sizeof(*binding) + details->property.size + 1);
        if (!binding)
                return -ENOMEM;

        *binding = (struct binding){
                .property_size = (uint32_t) details->property.size,
                .property_hash = property_hash(cache, details->property),
        };
        put_string(binding->property, details->property);

        r = label_hold(cache, &cache->endpoints, details->scope, details->endpoint, &binding->endpoint);
        if (r < 0)
                return r;

        r = label_hold(
                cache, &cache->destinations, details->scope, details->destination, &binding->destination);
        if (r < 0)
                goto no_destination;

        r = deadlines_add(&account->bindings, &binding->deadline, details->ttl_us, details->deadline_us);
        if (r < 0)
                goto no_deadline;

        /* Only bindings restored from a former process come out of order. */
        binding->id = take_id(cache, details->id);
        TAILQ_FOREACH_REVERSE (before, &binding->destination->bindings, binding_list, siblings)
                if (before->id < binding->id)
                        break;
        if (before)
                TAILQ_INSERT_AFTER(&binding->destination->bindings, before, binding, siblings);
        else
                TAILQ_INSERT_HEAD(&binding->destination->bindings, binding, siblings);

        cache->counts.bytes += bytes;
        account_charge(&cache->accounts, account, ACCOUNT_BYTES, bytes);
        cache->counts.bindings++;
        cache->counts.destinations = cache->destinations.table.n_entries;
        *ret = STEAL(binding);
        return 0;

no_deadline:
        label_release(cache, &cache->destinations, binding->destination);
no_destination:
        label_release(cache, &cache->endpoints, binding->endpoint);
        return r;
}

int binding_renew(struct cache *cache, struct binding *binding, struct account *account, uint64_t ttl_us,
        uint64_t deadline_us) {
        struct account *before = account_of_binding(binding);
        int r;

        r = deadlines_add(&account->bindings, &binding->deadline, ttl_us, deadline_us);
        if (r >= 0 && before != account) {
                uint64_t bytes = binding_bytes(binding->property_size);

                account_charge(&cache->accounts, account, ACCOUNT_BYTES, bytes);
                account_discharge(&cache->accounts, before, ACCOUNT_BYTES, bytes);
        }
        return r;
}

void binding_drop(struct cache *cache, struct binding *binding) {
        struct account *account = account_of_binding(binding);
        uint64_t bytes = binding_bytes(binding->property_size);

        deadlines_remove(&binding->deadline);
        TAILQ_REMOVE(&binding->destination->bindings, binding, siblings);
        label_release(cache, &cache->destinations, binding->destination);
        label_release(cache, &cache->endpoints, binding->endpoint);
        cache->counts.bytes -= bytes;
        cache->counts.bindings--;
        cache->counts.destinations = cache->destinations.table.n_entries;
        account_discharge(&cache->accounts, account, ACCOUNT_BYTES, bytes);
        free(binding);
}
