/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* custody: disposal: closes what came from outside, after its farewell, in processes where that may wait */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/cache.h"
#include "custody/queue.h"
#include "daemon/journal.h"
#include "daemon/loop.h"

/* Whoever drops the last copy of a socket may have to wait for its peer, whoever closes a file for its server, and whoever
 * makes a call that takes the lock of a socket for whoever else holds it. So none of this is done here, for no descriptor that
 * came from outside, nor for a socket in whose queue such descriptors may be: workers do it (custody/worker.h), in batches.
 * A user's next batch waits for the one before, so what never ends delays only what is the same user's. */

struct disposal;

/* Workers at most; so many users can have something that never ends before others have to wait. */
#define DISPOSAL_WORKERS_MAX 32

/* Told whether the farewell on CONNECTION was sent, and whether its descriptor is still open. The receiver owns both again. */
typedef void (*disposal_said_fn)(void *userdata, struct connection *connection, bool is_said, bool is_open);

/* Make a disposal. With no WORKERS_MAX, or where there can be no workers, everything is done in place. LOOP and JOURNAL must
 * outlive it; SIGCHLD stays blocked. Returns negative errno. */
int disposal_new(struct disposal **ret, struct loop *loop, struct journal *journal, unsigned workers_max);

/* Free it, after all that does not take too long. A worker that is left keeps our descriptor table; the kernel ends it with us,
 * and then closes the table in its name, which it must not do in ours. */
struct disposal *disposal_free(struct disposal *disposal);

/* Close a descriptor of a user's. Takes it; -1 does nothing. It must not be watched any more. */
void disposal_close(struct disposal *disposal, uid_t uid, enum disposal_origin origin, int fd);

/* The same for a parked connection, and for whom others hold copies of: they shall not have to wait for its peer either. */
void disposal_close_kept(struct disposal *disposal, uid_t uid, int fd);

/* The same for a connection whose peer has been told: what it has answered is thrown away first. */
void disposal_close_told(struct disposal *disposal, uid_t uid, int fd);

/* Send the farewell on a connection that is not watched any more, and close it, unless the peer gets TIME to answer. Takes the
 * connection, until the function of disposal_on_said() is called. */
void disposal_say(struct disposal *disposal, struct connection *connection, bool time);

/* Without a function, those that are open are closed. */
void disposal_on_said(struct disposal *disposal, disposal_said_fn fn, void *userdata);

/* Hand over what has come together in this round, not later. */
void disposal_hurry(struct disposal *disposal);

/* Hand over what has come together. To be called each round. */
void disposal_work(struct disposal *disposal);

/* Do what does not take too long, and return when only what does is left. For the end: it waits. */
void disposal_settle(struct disposal *disposal);

/* The number of descriptors that wait to be closed. */
size_t disposal_waiting(const struct disposal *disposal);

/* Set how many may wait. Users share them alike. */
void disposal_set_room(struct disposal *disposal, uint64_t room);

/* Return whether a user has so many that nothing more should be received from it. */
bool disposal_is_full(struct disposal *disposal, uid_t uid);

/* Return a number that changes when disposal_is_full() may have become false. */
uint64_t disposal_progress(const struct disposal *disposal);
