/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cache: the records behind cache.h and their references to each other, for this room only */
#pragma once

#include "base/cleanup.h"
#include "base/siphash.h"
#include "cache/accounts.h"
#include "cache/busiest.h"
#include "cache/past.h"
#include "cache/records.h"
#include "cache/table.h"

/* All endpoints, or all destinations. */
struct labels {
        struct table table;
        /* The last label used, because it is often used again: a destination is found and then bound, an endpoint is bound
         * and then saved to. */
        struct label *recent;
};

struct cache {
        struct siphash_key key;
        struct cache_limits limits;
        struct cache_counts counts;
        struct labels endpoints;
        struct labels destinations;
        struct table sockets; /* connections whose socket is known */
        struct accounts accounts;
        struct connection_list departed;
        uint64_t last_id;
        uid_t gave_way;  /* the last one at a limit */
        uint64_t now_us; /* the last time that was told */
        struct past past;
        struct busiest busiest[_LABEL_KIND_MAX];
};

/* Memory that an entry takes, in bytes. */
uint64_t label_bytes(size_t size);
uint64_t binding_bytes(size_t property_size);
uint64_t connection_bytes(size_t property_size, size_t farewell_size);

/* An endpoint, or a destination, or NULL. */
struct label *label_find(
        const struct cache *cache, const struct labels *labels, struct scope scope, struct slice text);

/* What a label is known by in the history: the same in all epochs of its user. */
uint64_t label_key_of(const struct cache *cache, enum label_kind kind, uid_t uid, struct slice text);
uint64_t label_key(const struct label *label, enum label_kind kind);

/* Return the label with this key in an epoch, or NULL. */
struct label *label_find_key(const struct cache *cache, enum label_kind kind, uint64_t key, uint64_t epoch);

struct binding *binding_find(const struct cache *cache, const struct label *destination,
        struct slice endpoint, struct slice property);

/* Return the connection with this socket, NULL if there is none. */
struct connection *socket_find(const struct cache *cache, uint64_t cookie);

/* Return the number that identifies the socket of a connection, 0 if it does not have it for itself. */
uint64_t socket_cookie(const struct cache *cache, const struct connection *connection);

/* A connection does not have its socket for itself any more. */
void socket_forget(struct cache *cache, struct connection *connection);

/* Make a connection of an endpoint, at its place by age, on this account. Returns -ENOMEM. */
int connection_new(struct cache *cache, struct account *account, const struct connection_details *details,
        struct connection **ret);

/* Make a binding of a destination, at its place by age, on this account. Returns -ENOMEM. */
int binding_new(struct cache *cache, struct account *account, const struct binding_details *details,
        struct binding **ret);

/* Give a binding a new deadline, on this account. Returns -ENOMEM. */
int binding_renew(struct cache *cache, struct binding *binding, struct account *account, uint64_t ttl_us,
        uint64_t deadline_us);
void binding_drop(struct cache *cache, struct binding *binding);

/* Put a connection among those that can be found, or take it out of them. */
void connection_park(struct cache *cache, struct connection *connection);
void connection_unpark(struct cache *cache, struct connection *connection);

/* Remove all references of the cache to a connection that is not parked. */
void connection_forget(struct cache *cache, struct connection *connection);

static inline struct label *label_of(struct table_entry *entry) {
        return entry ? CONTAINER_OF(entry, struct label, by_text) : NULL;
}

static inline struct connection *connection_of(struct deadline *deadline) {
        return deadline ? CONTAINER_OF(deadline, struct connection, deadline) : NULL;
}

static inline struct account *account_of_binding(const struct binding *binding) {
        return CONTAINER_OF(deadline_set_of(&binding->deadline), struct account, bindings);
}

static inline struct binding *binding_of(struct deadline *deadline) {
        return deadline ? CONTAINER_OF(deadline, struct binding, deadline) : NULL;
}
