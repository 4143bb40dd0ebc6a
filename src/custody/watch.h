/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* custody: takes care of connections: save, watch while parked, lend, give, close */
#pragma once

#include "cache/cache.h"
#include "custody/disposal.h"
#include "custody/statistics.h"
#include "daemon/loop.h"

/* The custody owns the descriptor of each of its connections from custody_save() on, until it gives it to the disposal, which
 * closes it. Here, only calls are made on it that do not take the lock of the socket: epoll_ctl(2), and a look at its kind. */

struct custody;

/* Make a custody for the connections in CACHE. The arguments must outlive it. After their farewell, at most LEAVING_MAX
 * connections wait for their peer to hang up. Returns negative errno. */
int custody_new(struct custody **ret, struct loop *loop, struct cache *cache, struct statistics *statistics,
        struct disposal *disposal, size_t leaving_max);

/* Close the connections that are left, and free. Waits for farewells that are being sent, but for none that takes long. */
struct custody *custody_free(struct custody *custody);

/* Save a connection in the cache and watch it: it leaves the cache when its peer hangs up or sends something. At a limit,
 * other connections are evicted. Takes the descriptor, unless it fails. Returns -EEXIST if another user has parked the same
 * socket, or another negative errno if there is no memory or the kernel cannot watch the connection. */
int custody_save(struct custody *custody, const struct connection_details *details);

/* Take a connection like custody_save(), and let go of it at once: nobody may find it, but its peer gets its farewell. */
int custody_decline(struct custody *custody, const struct connection_details *details);

/* Stop watching a lent connection. The custody still owns its descriptor. */
void custody_lend(struct custody *custody, struct connection *connection);

/* Close our copy of a lent connection that the agent has received. Frees the record. */
void custody_give(struct custody *custody, struct connection *connection);

/* Park a lent connection that the agent did not take again, in its old place in the cache. */
void custody_take_back(struct custody *custody, struct connection *connection);

/* Release a parked connection that the service manager keeps: remove it from the cache without a farewell, and free the
 * record. SO_LINGER is turned off, so that whoever closes the last copy does not wait for the peer. */
void custody_release(struct custody *custody, struct connection *connection);

/* Close connections that departed from the cache, after their farewell; only some at a time, so that agents do not notice.
 * Returns whether there are more. */
bool custody_let_go(struct custody *custody);

/* From here on, close connections as soon as their farewell is sent, or no longer. */
void custody_hurry(struct custody *custody, bool in_hurry);

/* Free a descriptor and memory: evict the connection that expires first, and wait for one peer less. Returns whether there
 * was any. */
bool custody_make_room(struct custody *custody);

/* Return the number of descriptors that wait to be closed. */
size_t custody_closing(const struct custody *custody);

/* Return the number of connections that wait for their peer to hang up. */
size_t custody_leaving(const struct custody *custody);
