/* libscache: park open connections in a connection cache, and find those that others parked */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* See libscache(3). All functions that can fail return a negative errno. A handle is one agent of the service: one
 * request at a time, and one thread at a time. There is no global state; threads use a handle each.
 *
 * Labels, properties and farewells are strings of any bytes but NUL, which the service never interprets. Descriptors
 * that are passed in stay the caller's, whatever comes of it; one that is saved is to be closed by the caller after the
 * success, without a shutdown(2). Descriptors that are returned are close-on-exec and the caller's. */

struct scache;

/* Where the service listens for all agents but Postfix. */
#define SCACHE_DEFAULT_PATH "/run/scached/scached.sock"

/* How long a request may take unless said otherwise, in µs. */
#define SCACHE_DEFAULT_TIMEOUT UINT64_C(5000000)

enum {
        SCACHE_LEGACY = 1, /* the service does not greet: Postfix older than 3.6, or the dialect for it */
};

/* Make a handle for the service that listens at PATH, NULL for SCACHE_DEFAULT_PATH. Nothing is connected yet: the first
 * request does that, and every other one that finds the service restarted. Returns -ENOMEM, -ENAMETOOLONG, or
 * -EINVAL for flags that this version does not know. */
int scache_new(struct scache **ret, const char *path, unsigned flags);

/* Close the connection to the service, and a descriptor that was found and not taken. NULL is fine. Returns NULL. */
struct scache *scache_free(struct scache *scache);

/* How long a request may take as a whole, in µs; 0 for SCACHE_DEFAULT_TIMEOUT, UINT64_MAX for ever. */
void scache_set_timeout(struct scache *scache, uint64_t timeout_us);

/* Connect now, to know whether the service is there. */
int scache_connect(struct scache *scache);

/* Park a connection under the label of its endpoint, with a property for whoever finds it, for TTL_S seconds at most.
 * FAREWELL is sent when the service lets go of the connection; NULL leaves that to the service. */
int scache_save_endp(struct scache *scache, unsigned ttl_s, const char *endpoint, const char *property,
        const char *farewell, int fd);

/* Bind a destination to an endpoint, with a property of that binding, for TTL_S seconds at most. */
int scache_save_dest(struct scache *scache, unsigned ttl_s, const char *destination, const char *property,
        const char *endpoint);

/* Both at once. */
int scache_save(struct scache *scache, unsigned ttl_s, const char *destination,
        const char *destination_property, const char *endpoint, const char *endpoint_property,
        const char *farewell, int fd);

/* Take a connection of an endpoint, or of the first endpoint of a destination that has one, out of the cache. The
 * properties are there afterwards. Returns -ENOENT if there is none. */
int scache_find_endp(struct scache *scache, const char *endpoint, int *ret_fd);
int scache_find_dest(struct scache *scache, const char *destination, int *ret_fd);

/* What the connection that was found last was saved with: the property of its endpoint, and, after a destination was
 * looked up, that of the binding. NUL-terminated; RET_SIZE may be NULL. They belong to the handle and are valid until
 * the next request; NULL if nothing was found. */
const char *scache_get_property(const struct scache *scache, size_t *ret_size);
const char *scache_get_destination_property(const struct scache *scache, size_t *ret_size);

/* The same for programs with an event loop. A start function returns 0 once the request is under way: then watch
 * scache_get_fd() for scache_get_events(), and call scache_process() when there are any, or at scache_get_timeout(),
 * until it returns 1. A descriptor to save must stay open until then. Where nothing is to be waited for, a start
 * function returns 1, or the error at once, and the request is over. Returns -EBUSY while another is under way. */
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

/* Go on without waiting. Returns 1 if this has finished the request, 0 if it is still under way or there is none. */
int scache_process(struct scache *scache);

/* What came of the last request: 0, a negative errno, or -EINPROGRESS. */
int scache_get_result(const struct scache *scache);

/* The descriptor that the last request found, from now on the caller's; -ENOENT if there is none (any more). */
int scache_take_fd(struct scache *scache);

/* The descriptor to watch, the same for the whole life of the handle, and the events of poll(2) to watch it for; without
 * a request under way, they tell that the service has gone, which scache_process() takes note of. */
int scache_get_fd(struct scache *scache);
int scache_get_events(const struct scache *scache);

/* When to call scache_process() although nothing has happened: CLOCK_MONOTONIC in µs, UINT64_MAX for never. */
uint64_t scache_get_timeout(const struct scache *scache);

/* Give the request up that is under way, if any; its result is -ECANCELED. What the service has done stays done. */
void scache_cancel(struct scache *scache);

#ifdef __cplusplus
}
#endif
