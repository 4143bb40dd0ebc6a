/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libscache: park open connections in a connection cache, and find the connections of other agents */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* See libscache(3). A handle is one agent of the service. It carries out one request at a time and belongs to one thread
 * at a time. There is no global state. Functions that can fail return a negative errno.
 *
 * Labels, properties and farewells are strings of any bytes but NUL; the service never interprets them. A descriptor that
 * you pass in stays yours, whatever the result; after it was saved, close it, without a shutdown(2). A descriptor that is
 * returned is yours, and close-on-exec. */

struct scache;

/* The socket for all agents but Postfix. */
#define SCACHE_DEFAULT_PATH "/run/scached/scached.sock"

/* The longest time for a request, in µs, if scache_set_timeout() sets no other. */
#define SCACHE_DEFAULT_TIMEOUT UINT64_C(5000000)

enum {
        SCACHE_LEGACY = 1, /* expect no greeting: Postfix before 3.6, or the dialect for it */
};

/* Make a handle for the service that listens on PATH; NULL is SCACHE_DEFAULT_PATH. The first request connects, and so does
 * a request after the service was restarted. Returns -ENOMEM, -ENAMETOOLONG, or -EINVAL for unknown flags. */
int scache_new(struct scache **ret, const char *path, unsigned flags);

/* Close the connection to the service, and a descriptor that was found but not taken. Accepts NULL. Returns NULL. */
struct scache *scache_free(struct scache *scache);

/* Set the longest time for a request in total, in µs; 0 is SCACHE_DEFAULT_TIMEOUT, UINT64_MAX is no limit. */
void scache_set_timeout(struct scache *scache, uint64_t timeout_us);

/* Set the epoch of the agent, such as a version of its configuration: it finds only what was saved in the same epoch. NULL, as at
 * first, is none. If the service has no epochs, requests to save and to find return -EOPNOTSUPP. Returns -ENOMEM, or -EBUSY if a
 * request is in progress. */
int scache_set_epoch(struct scache *scache, const char *epoch);

/* Connect now, to check that the service is there. */
int scache_connect(struct scache *scache);

/* Park a connection under the label of its endpoint, with a property for the agent that finds it, for at most TTL_S
 * seconds. The service sends FAREWELL before it closes the connection; with NULL, the service decides what to send. */
int scache_save_endp(struct scache *scache, unsigned ttl_s, const char *endpoint, const char *property,
        const char *farewell, int fd);

/* Bind a destination to an endpoint for at most TTL_S seconds. PROPERTY is that of the binding. */
int scache_save_dest(struct scache *scache, unsigned ttl_s, const char *destination, const char *property,
        const char *endpoint);

/* Do both in one request. */
int scache_save(struct scache *scache, unsigned ttl_s, const char *destination,
        const char *destination_property, const char *endpoint, const char *endpoint_property,
        const char *farewell, int fd);

/* Take a connection out of the cache: one of an endpoint, or one of the first endpoint of a destination that has any.
 * Returns -ENOENT if there is none. */
int scache_find_endp(struct scache *scache, const char *endpoint, int *ret_fd);
int scache_find_dest(struct scache *scache, const char *destination, int *ret_fd);

/* Return the property of the connection that the last request found, and of the binding that led to it. Both belong to the
 * handle, are valid until the next request, and end in a NUL that RET_SIZE, which may be NULL, does not count. Return
 * NULL if nothing was found. */
const char *scache_get_property(const struct scache *scache, size_t *ret_size);
const char *scache_get_destination_property(const struct scache *scache, size_t *ret_size);

/* The same for programs with an event loop. A start function returns 0 while the request is in progress: watch
 * scache_get_fd() for scache_get_events(), and call scache_process() for each event, and at scache_get_timeout(), until
 * it returns 1. Until then, a descriptor to save must stay open. A start function returns 1, or a negative errno, if the
 * request has finished at once. It returns -EBUSY if another request is in progress. */
int scache_start_connect(struct scache *scache);
int scache_start_save_endp(struct scache *scache, unsigned ttl_s, const char *endpoint, const char *property,
        const char *farewell, int fd);
int scache_start_save_dest(struct scache *scache, unsigned ttl_s, const char *destination,
        const char *property, const char *endpoint);
int scache_start_save(struct scache *scache, unsigned ttl_s, const char *destination,
        const char *destination_property, const char *endpoint, const char *endpoint_property,
        const char *farewell, int fd);
int scache_start_find_endp(struct scache *scache, const char *endpoint);
int scache_start_find_dest(struct scache *scache, const char *destination);

/* Go on without waiting. Returns 1 if this has finished the request, 0 if it is still in progress or there is none. */
int scache_process(struct scache *scache);

/* Return the result of the last request: 0, a negative errno, or -EINPROGRESS if it has not finished yet. */
int scache_get_result(const struct scache *scache);

/* Return the descriptor that the last request found, which then is yours, or -ENOENT if there is none left. */
int scache_take_fd(struct scache *scache);

/* Return the descriptor to watch, which is the same for the whole life of the handle, and the events of poll(2) to watch
 * it for. An event without a request means that the service closed the connection; scache_process() takes note of it. */
int scache_get_fd(struct scache *scache);
int scache_get_events(const struct scache *scache);

/* Return the time at which to call scache_process() without an event: CLOCK_MONOTONIC in µs, UINT64_MAX is never. */
uint64_t scache_get_timeout(const struct scache *scache);

/* Cancel the request in progress, if any; its result is -ECANCELED. The service may have carried it out already. */
void scache_cancel(struct scache *scache);

#ifdef __cplusplus
}
#endif
