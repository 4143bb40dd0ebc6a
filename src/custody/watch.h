/* custody: the connections in our care: saved, watched while they are parked, lent, given, and let go */
#pragma once

#include "cache/cache.h"
#include "custody/statistics.h"
#include "daemon/loop.h"

/* The custody owns the descriptor of every connection that it has, and is the one place where a connection's descriptor is
 * closed. A connection is in its care from custody_save() until custody_release() or until it lets go of it. */

struct custody;

/* Make a custody for the connections in CACHE; all of it must outlive the custody. LEAVING_MAX connections may wait
 * for their peer to hang up after the farewell. Returns negative errno. */
int custody_new(struct custody **ret, struct loop *loop, struct cache *cache, struct statistics *statistics,
        size_t leaving_max);

/* Close what is left and free. */
struct custody *custody_free(struct custody *custody);

/* Save a connection into the cache and take care of it: it leaves the cache when its peer hangs up or speaks. At a limit,
 * others depart. Returns negative errno if there is no memory or the kernel cannot watch it; then it is not in the cache, and
 * the descriptor stays the caller's. */
int custody_save(struct custody *custody, const struct connection_details *details);

/* A lent connection is no longer watched. Its descriptor is still ours to close. */
void custody_lend(struct custody *custody, struct connection *connection);

/* A lent connection was handed over: close our copy. Frees the record. */
void custody_give(struct custody *custody, struct connection *connection);

/* A lent connection was not taken: watch it again, in its old place in the cache. */
void custody_take_back(struct custody *custody, struct connection *connection);

/* A parked connection is in somebody else's hands now: out of the cache, without a farewell. Frees the record. Not
 * even who closes the last copy will have to wait for the peer: SO_LINGER is off. */
void custody_release(struct custody *custody, struct connection *connection);

/* Let go of what departed from the cache, politely; not of so much at once that agents would notice. Returns whether
 * there is more to let go of. */
bool custody_let_go(struct custody *custody);

/* Something found no descriptor or memory: let the connection nearest to its end go, and wait for one peer less. Returns whether
 * there was any. */
bool custody_make_room(struct custody *custody);

/* Connections that wait for their peer to hang up. */
size_t custody_leaving(const struct custody *custody);
