#include "cache/entries.h"

#include <errno.h>
#include <stdlib.h>

/* What malloc(3) adds to a block, header and rounding, on average. */
#define BLOCK_OVERHEAD 16

/* From this size on, properties of bindings are told apart by a hash first. */
#define LONG_PROPERTY 256

/* Who is looked for in a table. */
struct label_key {
        uid_t uid;
        struct slice label;
};

uint64_t endpoint_bytes(size_t label_size) {
        return sizeof(struct endpoint) + label_size + 1 + BLOCK_OVERHEAD;
}

uint64_t destination_bytes(size_t label_size) {
        return sizeof(struct destination) + label_size + 1 + BLOCK_OVERHEAD;
}

uint64_t binding_bytes(size_t property_size) {
        return sizeof(struct binding) + property_size + 1 + BLOCK_OVERHEAD;
}

uint64_t connection_bytes(size_t property_size, size_t farewell_size) {
        return sizeof(struct connection) + property_size + farewell_size + 2 + BLOCK_OVERHEAD;
}

/* The user is spread over the hash, not hashed: it is not chosen by whoever chooses labels. */
static uint64_t label_hash(const struct cache *cache, uid_t uid, struct slice label) {
        return siphash13(&cache->key, label) + uid * UINT64_C(0x9e3779b97f4a7c15);
}

static bool endpoint_matches(const struct table_entry *entry, const void *key) {
        const struct endpoint *endpoint = CONTAINER_OF(entry, const struct endpoint, by_label);
        const struct label_key *k = key;

        return endpoint->uid == k->uid &&
                slice_equal((struct slice){ endpoint->label, endpoint->label_size }, k->label);
}

static bool destination_matches(const struct table_entry *entry, const void *key) {
        const struct destination *destination = CONTAINER_OF(entry, const struct destination, by_label);
        const struct label_key *k = key;

        return destination->uid == k->uid &&
                slice_equal((struct slice){ destination->label, destination->label_size }, k->label);
}

struct endpoint *endpoint_find(const struct cache *cache, uid_t uid, struct slice label) {
        const struct label_key key = { uid, label };
        struct table_entry *entry;

        if (cache->recent_endpoint && endpoint_matches(&cache->recent_endpoint->by_label, &key))
                return cache->recent_endpoint;

        entry = table_find(&cache->endpoints, label_hash(cache, uid, label), endpoint_matches, &key);
        return entry ? CONTAINER_OF(entry, struct endpoint, by_label) : NULL;
}

struct destination *destination_find(const struct cache *cache, uid_t uid, struct slice label) {
        const struct label_key key = { uid, label };
        struct table_entry *entry;

        if (cache->recent_destination && destination_matches(&cache->recent_destination->by_label, &key))
                return cache->recent_destination;

        entry = table_find(&cache->destinations, label_hash(cache, uid, label), destination_matches, &key);
        return entry ? CONTAINER_OF(entry, struct destination, by_label) : NULL;
}

static uint32_t property_hash(const struct cache *cache, struct slice property) {
        return property.size >= LONG_PROPERTY ? (uint32_t) siphash13(&cache->key, property) : 0;
}

struct binding *binding_find(const struct cache *cache, const struct destination *destination,
        struct slice endpoint, struct slice property) {
        uint32_t hash = property_hash(cache, property);
        struct binding *binding;

        /* By the label, not by the endpoint: to look that up would cost more than most of these walks do. */
        TAILQ_FOREACH (binding, &destination->bindings, siblings)
                if (binding->property_hash == hash && slice_equal(binding_property(binding), property) &&
                        slice_equal(binding_endpoint(binding), endpoint))
                        return binding;

        return NULL;
}

static char *put_string(char *to, struct slice bytes) {
        if (bytes.size > 0)
                to = mempcpy(to, bytes.data, bytes.size);
        *to++ = 0;
        return to;
}

/* Find or make an endpoint, and hold it. */
static int endpoint_hold(struct cache *cache, uid_t uid, struct slice label, struct endpoint **ret) {
        struct endpoint *endpoint = endpoint_find(cache, uid, label);

        if (!endpoint) {
                endpoint = malloc(sizeof(*endpoint) + label.size + 1);
                if (!endpoint)
                        return -ENOMEM;

                TAILQ_INIT(&endpoint->connections);
                endpoint->uid = uid;
                endpoint->label_size = (uint32_t) label.size;
                endpoint->n_references = 0;
                put_string(endpoint->label, label);
                table_add(&cache->endpoints, &endpoint->by_label, label_hash(cache, uid, label));
                cache->counts.bytes += endpoint_bytes(label.size);
        }

        endpoint->n_references++;
        cache->recent_endpoint = endpoint;
        *ret = endpoint;
        return 0;
}

static void endpoint_release(struct cache *cache, struct endpoint *endpoint) {
        if (--endpoint->n_references > 0)
                return;

        if (cache->recent_endpoint == endpoint)
                cache->recent_endpoint = NULL;
        table_remove(&cache->endpoints, &endpoint->by_label);
        cache->counts.bytes -= endpoint_bytes(endpoint->label_size);
        free(endpoint);
}

static int destination_hold(struct cache *cache, uid_t uid, struct slice label, struct destination **ret) {
        struct destination *destination = destination_find(cache, uid, label);

        if (!destination) {
                destination = malloc(sizeof(*destination) + label.size + 1);
                if (!destination)
                        return -ENOMEM;

                TAILQ_INIT(&destination->bindings);
                destination->uid = uid;
                destination->label_size = (uint32_t) label.size;
                destination->n_bindings = 0;
                put_string(destination->label, label);
                table_add(&cache->destinations, &destination->by_label, label_hash(cache, uid, label));
                cache->counts.bytes += destination_bytes(label.size);
                cache->counts.destinations++;
        }

        destination->n_bindings++;
        cache->recent_destination = destination;
        *ret = destination;
        return 0;
}

static void destination_release(struct cache *cache, struct destination *destination) {
        if (--destination->n_bindings > 0)
                return;

        if (cache->recent_destination == destination)
                cache->recent_destination = NULL;
        table_remove(&cache->destinations, &destination->by_label);
        cache->counts.bytes -= destination_bytes(destination->label_size);
        cache->counts.destinations--;
        free(destination);
}

void connection_park(struct cache *cache, struct connection *connection) {
        struct endpoint *endpoint = connection->endpoint;
        struct connection *after = NULL;

        if (TAILQ_EMPTY(&endpoint->connections))
                cache->counts.endpoints++;
        else if (TAILQ_LAST(&endpoint->connections, connection_list)->id > connection->id)
                /* It comes back from an agent, and was the oldest when it left. */
                TAILQ_FOREACH (after, &endpoint->connections, siblings)
                        if (after->id > connection->id)
                                break;

        if (after)
                TAILQ_INSERT_BEFORE(after, connection, siblings);
        else
                TAILQ_INSERT_TAIL(&endpoint->connections, connection, siblings);

        connection->state = CONNECTION_PARKED;
        cache->counts.connections++;
}

void connection_unpark(struct cache *cache, struct connection *connection) {
        struct endpoint *endpoint = connection->endpoint;

        TAILQ_REMOVE(&endpoint->connections, connection, siblings);
        cache->counts.connections--;
        if (TAILQ_EMPTY(&endpoint->connections))
                cache->counts.endpoints--;
}

void connection_forget(struct cache *cache, struct connection *connection) {
        deadlines_remove(&cache->connection_deadlines, &connection->deadline);
        cache->counts.bytes -= connection_bytes(connection->property_size, connection->farewell_size);
        endpoint_release(cache, STEAL(connection->endpoint));
        connection->state = CONNECTION_DEPARTED;
}

/* Ids order entries by age. Those taken over from a former process keep theirs. */
static uint64_t take_id(struct cache *cache, uint64_t id) {
        if (id == 0)
                return ++cache->last_id;

        cache->last_id = MAX(cache->last_id, id);
        return id;
}

int connection_new(struct cache *cache, const struct connection_details *details, struct connection **ret) {
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

        r = endpoint_hold(cache, details->uid, details->endpoint, &connection->endpoint);
        if (r < 0)
                return r;

        r = deadlines_set(
                &cache->connection_deadlines, &connection->deadline, details->ttl_us, details->deadline_us);
        if (r < 0) {
                endpoint_release(cache, connection->endpoint);
                return r;
        }

        connection->id = take_id(cache, details->id);
        cache->counts.bytes += connection_bytes(details->property.size, details->farewell.size);
        connection_park(cache, connection);
        *ret = STEAL(connection);
        return 0;
}

int binding_new(struct cache *cache, const struct binding_details *details) {
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

        r = endpoint_hold(cache, details->uid, details->endpoint, &binding->endpoint);
        if (r < 0)
                return r;

        r = destination_hold(cache, details->uid, details->destination, &binding->destination);
        if (r < 0)
                goto no_destination;

        r = deadlines_set(
                &cache->binding_deadlines, &binding->deadline, details->ttl_us, details->deadline_us);
        if (r < 0)
                goto no_deadline;

        /* Only those taken over from a former process come out of order. */
        binding->id = take_id(cache, details->id);
        TAILQ_FOREACH_REVERSE (before, &binding->destination->bindings, binding_list, siblings)
                if (before->id < binding->id)
                        break;
        if (before)
                TAILQ_INSERT_AFTER(&binding->destination->bindings, before, binding, siblings);
        else
                TAILQ_INSERT_HEAD(&binding->destination->bindings, binding, siblings);

        cache->counts.bytes += binding_bytes(details->property.size);
        cache->counts.bindings++;
        STEAL(binding);
        return 0;

no_deadline:
        destination_release(cache, binding->destination);
no_destination:
        endpoint_release(cache, binding->endpoint);
        return r;
}

void binding_drop(struct cache *cache, struct binding *binding) {
        deadlines_remove(&cache->binding_deadlines, &binding->deadline);
        TAILQ_REMOVE(&binding->destination->bindings, binding, siblings);
        destination_release(cache, binding->destination);
        endpoint_release(cache, binding->endpoint);
        cache->counts.bytes -= binding_bytes(binding->property_size);
        cache->counts.bindings--;
        free(binding);
}
