/* cache: the records behind cache.h and how they hold on to each other, for this room only */
#pragma once

#include "base/cleanup.h"
#include "cache/cache.h"
#include "cache/table.h"

/* A connection holds its endpoint, and so does a binding, which also holds its destination. Endpoints and destinations
 * live as long as something holds them. */

struct endpoint {
        struct table_entry by_label;
        struct connection_list connections; /* parked, first saved first */
        uid_t uid;
        uint32_t label_size;
        uint32_t n_references; /* connections, lent ones too, and bindings */
        char label[];
};

TAILQ_HEAD(binding_list, binding);

struct destination {
        struct table_entry by_label;
        struct binding_list bindings; /* first saved first */
        uid_t uid;
        uint32_t label_size;
        uint32_t n_bindings;
        char label[];
};

struct binding {
        TAILQ_ENTRY(binding) siblings;
        struct deadline deadline;
        struct destination *destination;
        struct endpoint *endpoint;
        uint64_t id;
        uint32_t property_size;
        uint32_t
                property_hash; /* of a long one: 1,024 that differ only at their ends must not be compared whole */
        char property[];
};

struct cache {
        struct siphash_key key;
        struct cache_limits limits;
        struct cache_counts counts;
        struct table endpoints;
        struct table destinations;
        /* What is asked for in a row: a destination is found and bound again, an endpoint bound to and saved to. */
        struct destination *recent_destination;
        struct endpoint *recent_endpoint;
        struct deadlines connection_deadlines;
        struct deadlines binding_deadlines;
        struct connection_list departed;
        uint64_t last_id;
};

/* Memory that an entry takes, in bytes. */
uint64_t endpoint_bytes(size_t label_size);
uint64_t destination_bytes(size_t label_size);
uint64_t binding_bytes(size_t property_size);
uint64_t connection_bytes(size_t property_size, size_t farewell_size);

struct endpoint *endpoint_find(const struct cache *cache, uid_t uid, struct slice label);
struct destination *destination_find(const struct cache *cache, uid_t uid, struct slice label);
struct binding *binding_find(const struct cache *cache, const struct destination *destination,
        struct slice endpoint, struct slice property);

/* Make a connection of an endpoint, at its place by age. Returns -ENOMEM. */
int connection_new(struct cache *cache, const struct connection_details *details, struct connection **ret);

/* Make a binding of a destination, at its place by age. Returns -ENOMEM. */
int binding_new(struct cache *cache, const struct binding_details *details);
void binding_drop(struct cache *cache, struct binding *binding);

/* Put a connection among those that can be found, or take it out of them. */
void connection_park(struct cache *cache, struct connection *connection);
void connection_unpark(struct cache *cache, struct connection *connection);

/* The cache lets go of all it knows about a connection that is not parked. */
void connection_forget(struct cache *cache, struct connection *connection);

static inline struct connection *connection_of(struct deadline *deadline) {
        return deadline ? CONTAINER_OF(deadline, struct connection, deadline) : NULL;
}

static inline struct binding *binding_of(struct deadline *deadline) {
        return deadline ? CONTAINER_OF(deadline, struct binding, deadline) : NULL;
}
