/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cache: destinations, bindings, endpoints and connections; pure data, the clock is an argument */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/siphash.h"
#include "base/slice.h"
#include "cache/busiest.h"
#include "cache/past.h"
#include "cache/records.h"

/* A destination is bound to endpoints, and an endpoint has connections. All of them belong to a scope, a user and an epoch, and
 * nobody else finds them. The cache never touches a descriptor: the record of a connection has its number, and the owner of the
 * descriptor closes it when the connection has departed (cache_next_departed()). */

struct cache;
struct accounts;

/* If a destination has more bindings, the one that expires first is evicted: a lookup walks all of them. */
#define CACHE_DESTINATION_BINDINGS_MAX 1024

/* Make an empty cache. Returns -ENOMEM. */
int cache_new(struct cache **ret, const struct siphash_key *key, const struct cache_limits *limits);

/* Free a cache. It must have no connections, neither parked nor lent nor departed. */
struct cache *cache_free(struct cache *cache);

/* Change the limits. Entries above them are evicted. */
void cache_set_limits(struct cache *cache, const struct cache_limits *limits);

const struct cache_counts *cache_counts(const struct cache *cache);

/* Return the accounts of the users, for what the rooms above hold of the same users. */
struct accounts *cache_accounts(struct cache *cache);

/* Return who gave way when an entry was last evicted at a limit. */
uid_t cache_gave_way(const struct cache *cache);

/* Save a connection as the last one of its endpoint. At a limit the user who holds most gives way, with what expires first of
 * it; that may be the user who saves. A socket is parked once: saved again by the same user it replaces the former
 * connection, which departs. Returns -EEXIST if another user has parked it, -ENOMEM; then nothing has changed but that the
 * former connection may have departed, and the descriptor is still the caller's. */
int cache_save_endpoint(
        struct cache *cache, const struct connection_details *details, struct connection **ret);

/* Bind a destination to an endpoint, or renew a binding with the same properties. It is on the account of who saved it last.
 * Returns -ENOMEM. */
int cache_save_destination(struct cache *cache, const struct binding_details *details);

/* Lend the first connection of an endpoint that has not expired at NOW µs, NULL if there is none. */
struct connection *cache_find_endpoint(
        struct cache *cache, struct scope scope, struct slice endpoint, uint64_t now_us);

/* Lend the first connection of a destination: its endpoints are tried in the order in which they were bound. The property of
 * the binding is valid until the cache changes. */
struct connection *cache_find_destination(struct cache *cache, struct scope scope, struct slice destination,
        uint64_t now_us, struct slice *ret_property);

/* Why a lookup missed, and how many µs ago that happened. */
struct cache_miss {
        enum reason reason;
        uint64_t ago_us;
};

/* Say why a lookup missed at NOW µs, once after each that did, and count it among the busiest labels. IS_OVER: the agent is of an
 * epoch that is over, and the cache was not asked at all.
 *
 * The reason is the last that happened to the label. To an endpoint that is what happened to its connections. To a destination it is
 * the last that happened to any of the endpoints that it is bound to; where it is bound to none any more, to the endpoint of
 * the binding that ended last, and the end of that binding itself if this endpoint has a connection. What happened in
 * another epoch is outdated, whatever it was. */
void cache_explain_miss(struct cache *cache, enum label_kind kind, struct scope scope, struct slice label,
        uint64_t now_us, bool is_over, struct cache_miss *ret);

/* A connection that was found: of which endpoint, and when. All zero is none. */
struct cache_taking {
        uint64_t key;
        uint64_t epoch;
        uint64_t at_us;
};

/* Return that of a connection that has just been found. */
struct cache_taking cache_taking(const struct cache *cache, const struct connection *connection);

/* An agent that found a connection shows at NOW µs that it has it no longer, and has not parked it again. */
void cache_note_used(struct cache *cache, const struct cache_taking *taking, uint64_t now_us);

/* Tell the time in µs, before calls that do not take it: what is remembered of what they do has happened then. */
void cache_tell_time(struct cache *cache, uint64_t now_us);

/* Return the busiest destinations or endpoints, and how many connections a row of them has parked (of a destination: those of its
 * first 64 bindings). */
const struct busiest *cache_busiest(const struct cache *cache, enum label_kind kind);
uint64_t cache_count_parked(const struct cache *cache, enum label_kind kind, const struct busiest_row *row);

/* Remove a lent connection that the agent has received. The caller owns the record (connection_free()). */
void cache_give(struct cache *cache, struct connection *connection);

/* Park a lent connection again that the agent did not take, in its old place and with its old deadline. */
void cache_take_back(struct cache *cache, struct connection *connection, uint64_t now_us);

/* Remove a parked connection at once. The caller owns the record. */
void cache_remove(struct cache *cache, struct connection *connection);

/* The same for one whose peer hung up or spoke. */
void cache_bury(struct cache *cache, struct connection *connection);

/* Expire entries whose deadline is before NOW µs, at most BUDGET of them. Returns whether there may be more. */
bool cache_expire(struct cache *cache, uint64_t now_us, unsigned budget);

/* Drop a binding of an epoch that is over. */
void cache_drop(struct cache *cache, struct binding *binding);

/* Let a parked connection depart. */
void cache_let_go(struct cache *cache, struct connection *connection, enum departure why);

/* Let the connection that expires first depart. Returns false if there is none. */
bool cache_let_one_go(struct cache *cache, enum departure why);

/* Return the next connection that has departed, NULL if there is none. The caller owns the record and the
 * descriptor. */
struct connection *cache_next_departed(struct cache *cache);

/* Return when the next entry expires, in µs; USEC_INFINITY if the cache is empty. */
uint64_t cache_next_deadline(const struct cache *cache);

/* The position of a walk through the cache. All zero is the start. */
struct cache_cursor {
        uint64_t bucket;
        uint64_t hash;    /* of the endpoint the walk is in */
        uint64_t visited; /* id of the last connection visited there */
        uint64_t id;      /* of the connection behind which the walk goes on, at once */
        uint64_t cookie;  /* of its socket: it is found by that. 0: there is none */
        bool within;
};

/* Walk the cache in parts: each call looks at about BUDGET entries and moves the cursor on. Returns false at the end of the
 * walk. Entries that are in the cache during the whole walk are visited at least once, those of one endpoint or
 * destination in their order. FN must not change the cache. */
typedef void (*cache_connection_fn)(void *userdata, struct connection *connection);
typedef void (*cache_binding_fn)(void *userdata, struct binding *binding);
bool cache_walk_connections(const struct cache *cache, struct cache_cursor *cursor, size_t budget,
        cache_connection_fn fn, void *userdata);
bool cache_walk_bindings(const struct cache *cache, struct cache_cursor *cursor, size_t budget,
        cache_binding_fn fn, void *userdata);

/* Have the walk go on behind a parked connection that it has come by: one that stays, where others are to go. */
void cache_cursor_rest(
        const struct cache *cache, struct cache_cursor *cursor, const struct connection *connection);

/* Free the record of a connection that is out of the cache. */
struct connection *connection_free(struct connection *connection);
