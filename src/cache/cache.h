/* cache: destinations, bindings, endpoints and connections; pure data, the clock is an argument */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/slice.h"
#include "cache/records.h"
#include "cache/siphash.h"

/* A destination is bound to endpoints, an endpoint refers to connections. All of them belong to a user: nobody finds
 * what another user saved. The cache never touches a descriptor: a connection is a record that holds its number for
 * whoever owns it, and that owner lets go of connections when the cache says so (cache_next_departed()). */

struct cache;

/* More bindings of one destination than this push the one nearest to its end out: a lookup walks them in order. */
#define CACHE_DESTINATION_BINDINGS_MAX 1024

/* Make an empty cache. Returns -ENOMEM. */
int cache_new(struct cache **ret, const struct siphash_key *key, const struct cache_limits *limits);

/* Free a cache. All connections must be out of it: none parked, lent, or departed. */
struct cache *cache_free(struct cache *cache);

/* Change the limits; what is too much departs. */
void cache_set_limits(struct cache *cache, const struct cache_limits *limits);

const struct cache_counts *cache_counts(const struct cache *cache);

/* Save a connection behind those its endpoint has. At a limit, others depart. Returns -ENOMEM; then nothing has changed
 * and the descriptor is still the caller's. */
int cache_save_endpoint(
        struct cache *cache, const struct connection_details *details, struct connection **ret);

/* Bind a destination to an endpoint, or renew a binding with the same properties. Returns -ENOMEM. */
int cache_save_destination(struct cache *cache, const struct binding_details *details);

/* Lend the first connection of an endpoint, NULL if it has none that lives at NOW µs. */
struct connection *cache_find_endpoint(
        struct cache *cache, uid_t uid, struct slice endpoint, uint64_t now_us);

/* Lend the first connection of the first endpoint that has one, in the order in which the destination was bound to
 * them. The binding's property is valid until the cache is changed. */
struct connection *cache_find_destination(struct cache *cache, uid_t uid, struct slice destination,
        uint64_t now_us, struct slice *ret_property);

/* A lent connection was handed over: it is out of the cache, the record is the caller's (connection_free()). */
void cache_give(struct cache *cache, struct connection *connection);

/* A lent connection was not taken: back to its old place, with its old deadline. */
void cache_take_back(struct cache *cache, struct connection *connection, uint64_t now_us);

/* A parked connection leaves the cache at once; the record is the caller's. */
void cache_remove(struct cache *cache, struct connection *connection);

/* Let what has ended at NOW µs depart, at most BUDGET entries. Returns whether more may be waiting. */
bool cache_expire(struct cache *cache, uint64_t now_us, unsigned budget);

/* A parked connection departs. */
void cache_let_go(struct cache *cache, struct connection *connection, enum departure why);

/* The connection nearest to its end departs. Returns false if there is none. */
bool cache_let_one_go(struct cache *cache, enum departure why);

/* The next connection that has departed, to be let go by the caller, whose record it is now; NULL if there is none. */
struct connection *cache_next_departed(struct cache *cache);

/* When the next entry ends, in µs; USEC_INFINITY if the cache is empty. */
uint64_t cache_next_deadline(const struct cache *cache);

/* Where a walk through the cache stands. All zero is its start. */
struct cache_cursor {
        uint64_t bucket;
        uint64_t hash; /* of the endpoint the walk is in */
        uint64_t id;   /* of the last connection visited there */
        bool within;
};

/* Walk the cache in parts: each call visits some entries, about BUDGET of them, and moves the cursor on; false means
 * that the walk is over. Entries that stay during the whole walk are visited at least once, those of one endpoint
 * or destination in their order. FN must not change the cache. */
typedef void (*cache_connection_fn)(void *userdata, struct connection *connection);
typedef void (*cache_binding_fn)(void *userdata, const struct binding *binding);
bool cache_walk_connections(const struct cache *cache, struct cache_cursor *cursor, size_t budget,
        cache_connection_fn fn, void *userdata);
bool cache_walk_bindings(const struct cache *cache, struct cache_cursor *cursor, size_t budget,
        cache_binding_fn fn, void *userdata);

/* Free the record of a connection that is out of the cache. */
struct connection *connection_free(struct connection *connection);
