/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "libscache/handle.h"
#include "libscache/scache.h"

/* The functions of scache.h. */

/* The largest request or answer; the service's own limits are lower. */
#define MESSAGE_MAX ((size_t) 64 << 20)

_public_ int scache_new(struct scache **ret, const char *path, unsigned flags) {
        struct scache *scache;
        size_t size;

        if (!path)
                path = SCACHE_DEFAULT_PATH;
        size = strlen(path) + 1;
        if (size > sizeof(scache->address.sun_path))
                return -ENAMETOOLONG;
        if (size == 1 || (flags & ~(unsigned) SCACHE_LEGACY) != 0)
                return -EINVAL;

        scache = malloc(sizeof(*scache));
        if (!scache)
                return -ENOMEM;

        *scache = (struct scache){
                .address.sun_family = AF_UNIX,
                .is_legacy = (flags & SCACHE_LEGACY) != 0,
                .timeout_us = SCACHE_DEFAULT_TIMEOUT,
                .socket = -1,
                .epoll_fd = -1,
                .found_fd = -1,
                .passing.fd = -1,
                .request.texts = WIRE_BUFFER_INIT(MESSAGE_MAX),
                .output = WIRE_BUFFER_INIT(MESSAGE_MAX),
                .input = WIRE_BUFFER_INIT(MESSAGE_MAX),
                .properties = WIRE_BUFFER_INIT(MESSAGE_MAX),
        };
        memcpy(scache->address.sun_path, path, size);

        *ret = scache;
        return 0;
}

_public_ struct scache *scache_free(struct scache *scache) {
        if (!scache)
                return NULL;

        handle_disconnect(scache);
        closep(&scache->epoll_fd);
        closep(&scache->found_fd);
        wire_buffer_release(&scache->request.texts);
        wire_buffer_release(&scache->output);
        wire_buffer_release(&scache->input);
        wire_buffer_release(&scache->properties);
        free(scache->epoch);
        free(scache);
        return NULL;
}

_public_ void scache_set_timeout(struct scache *scache, uint64_t timeout_us) {
        scache->timeout_us = timeout_us > 0 ? timeout_us : SCACHE_DEFAULT_TIMEOUT;
}

_public_ int scache_set_epoch(struct scache *scache, const char *epoch) {
        char *copy = NULL;

        if (scache->step != STEP_NONE)
                return -EBUSY;
        if (epoch) {
                copy = strdup(epoch);
                if (!copy)
                        return -ENOMEM;
        }

        free(scache->epoch);
        scache->epoch = copy;
        return 0;
}

/* Begin a request. Returns 0 if it is under way, 1 if it has succeeded at once, or negative errno. */
static int start(struct scache *scache, enum request_kind kind, unsigned ttl_s, int fd,
        const char *const texts[_TEXT_MAX]) {
        int r;

        if (scache->step != STEP_NONE)
                return -EBUSY;

        r = request_set(&scache->request, kind, ttl_s, fd, texts);
        if (r < 0)
                return r;

        r = handle_begin(scache);
        return r > 0 && scache->result < 0 ? scache->result : r;
}

_public_ int scache_start_connect(struct scache *scache) {
        return start(scache, REQUEST_CONNECT, 0, -1, (const char *const[_TEXT_MAX]){});
}

_public_ int scache_start_save_endp(struct scache *scache, unsigned ttl_s, const char *endpoint,
        const char *property, const char *farewell, int fd) {
        const char *const texts[_TEXT_MAX] = {
                [TEXT_ENDPOINT] = endpoint,
                [TEXT_PROPERTY] = property,
                [TEXT_FAREWELL] = farewell,
        };

        if (!endpoint || ttl_s == 0)
                return -EINVAL;
        return fd < 0 ? -EBADF : start(scache, REQUEST_SAVE_ENDP, ttl_s, fd, texts);
}

_public_ int scache_start_save_dest(struct scache *scache, unsigned ttl_s, const char *destination,
        const char *property, const char *endpoint) {
        const char *const texts[_TEXT_MAX] = {
                [TEXT_ENDPOINT] = endpoint,
                [TEXT_DESTINATION] = destination,
                [TEXT_DESTINATION_PROPERTY] = property,
        };

        if (!destination || !endpoint || ttl_s == 0)
                return -EINVAL;
        return start(scache, REQUEST_SAVE_DEST, ttl_s, -1, texts);
}

_public_ int scache_start_save(struct scache *scache, unsigned ttl_s, const char *destination,
        const char *destination_property, const char *endpoint, const char *endpoint_property,
        const char *farewell, int fd) {
        const char *const texts[_TEXT_MAX] = {
                [TEXT_ENDPOINT] = endpoint,
                [TEXT_PROPERTY] = endpoint_property,
                [TEXT_DESTINATION] = destination,
                [TEXT_DESTINATION_PROPERTY] = destination_property,
                [TEXT_FAREWELL] = farewell,
        };

        if (!destination || !endpoint || ttl_s == 0)
                return -EINVAL;
        return fd < 0 ? -EBADF : start(scache, REQUEST_SAVE, ttl_s, fd, texts);
}

_public_ int scache_start_find_endp(struct scache *scache, const char *endpoint) {
        const char *const texts[_TEXT_MAX] = { [TEXT_ENDPOINT] = endpoint };

        return endpoint ? start(scache, REQUEST_FIND_ENDP, 0, -1, texts) : -EINVAL;
}

_public_ int scache_start_find_dest(struct scache *scache, const char *destination) {
        const char *const texts[_TEXT_MAX] = { [TEXT_DESTINATION] = destination };

        return destination ? start(scache, REQUEST_FIND_DEST, 0, -1, texts) : -EINVAL;
}

/* There is an event without a request: the service has closed the connection, or broke the protocol. */
static void note_loss(struct scache *scache) {
        struct wire_passing passing;
        char byte;

        if (scache->socket < 0 || wire_receive(scache->socket, &byte, 1, &passing) == -EAGAIN)
                return;

        closep(&passing.fd);
        handle_disconnect(scache);
        scache->was_lost = true;
}

_public_ int scache_process(struct scache *scache) {
        if (scache->step == STEP_NONE) {
                note_loss(scache);
                return 0;
        }

        handle_advance(scache);
        return scache->step == STEP_NONE;
}

_public_ int scache_get_result(const struct scache *scache) {
        return scache->result;
}

_public_ int scache_take_fd(struct scache *scache) {
        return scache->found_fd >= 0 && scache->step == STEP_NONE ? steal_fd(&scache->found_fd) : -ENOENT;
}

static const char *property_at(const struct scache *scache, bool exists, size_t i, size_t *ret_size) {
        exists = exists && scache->step == STEP_NONE && scache->result >= 0;
        if (ret_size)
                *ret_size = exists ? scache->property_sizes[i] : 0;
        if (!exists)
                return NULL;

        return wire_buffer_head(&scache->properties) + (i > 0 ? scache->property_sizes[0] + 1 : 0);
}

_public_ const char *scache_get_property(const struct scache *scache, size_t *ret_size) {
        size_t n = scache->n_properties;

        return property_at(scache, n > 0, n - 1, ret_size);
}

_public_ const char *scache_get_destination_property(const struct scache *scache, size_t *ret_size) {
        return property_at(scache, scache->n_properties > 1, 0, ret_size);
}

_public_ int scache_get_fd(struct scache *scache) {
        int r;

        /* An epoll set of one socket, because an event loop needs a descriptor that stays the same on a new connection. */
        if (scache->epoll_fd < 0) {
                scache->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
                if (scache->epoll_fd < 0)
                        return -errno;
                r = handle_watch(scache);
                if (r < 0) {
                        closep(&scache->epoll_fd);
                        scache->epoll_fd = -1;
                        return r;
                }
        }

        return scache->epoll_fd;
}

_public_ int scache_get_events(_unused_ const struct scache *scache) {
        return POLLIN;
}

_public_ uint64_t scache_get_timeout(const struct scache *scache) {
        switch (scache->step) {
        case STEP_NONE:
                return UINT64_MAX;
        case STEP_CONNECT:
                return MIN(scache->retry_at_us, scache->deadline_us);
        default:
                return scache->deadline_us;
        }
}

_public_ void scache_cancel(struct scache *scache) {
        if (scache->step == STEP_NONE)
                return;

        closep(&scache->found_fd);
        scache->found_fd = -1;
        handle_finish(scache, -ECANCELED);
}

/* Wait for the end of a request that was started with result R. */
static int finish(struct scache *scache, int r) {
        if (r < 0)
                return r;

        while (scache->step != STEP_NONE) {
                struct pollfd pollfd = { .fd = scache->socket, .events = handle_events(scache) };
                uint64_t at_us = scache_get_timeout(scache), now_us = clock_now(CLOCK_MONOTONIC);
                uint64_t left_us = at_us > now_us ? at_us - now_us : 0;
                struct timespec left = { (time_t) (left_us / USEC_PER_SEC),
                        (long) (left_us % USEC_PER_SEC * NSEC_PER_USEC) };

                if (ppoll(&pollfd, 1, at_us == UINT64_MAX ? NULL : &left, NULL) < 0 && errno != EINTR) {
                        handle_finish(scache, -errno);
                        break;
                }
                handle_advance(scache);
        }

        return scache->result;
}

_public_ int scache_connect(struct scache *scache) {
        return finish(scache, scache_start_connect(scache));
}

_public_ int scache_save_endp(struct scache *scache, unsigned ttl_s, const char *endpoint,
        const char *property, const char *farewell, int fd) {
        return finish(scache, scache_start_save_endp(scache, ttl_s, endpoint, property, farewell, fd));
}

_public_ int scache_save_dest(struct scache *scache, unsigned ttl_s, const char *destination,
        const char *property, const char *endpoint) {
        return finish(scache, scache_start_save_dest(scache, ttl_s, destination, property, endpoint));
}

_public_ int scache_save(struct scache *scache, unsigned ttl_s, const char *destination,
        const char *destination_property, const char *endpoint, const char *endpoint_property,
        const char *farewell, int fd) {
        return finish(scache,
                scache_start_save(scache, ttl_s, destination, destination_property, endpoint,
                        endpoint_property, farewell, fd));
}

_public_ int scache_find_endp(struct scache *scache, const char *endpoint, int *ret_fd) {
        int r;

        r = finish(scache, scache_start_find_endp(scache, endpoint));
        if (r >= 0)
                *ret_fd = scache_take_fd(scache);
        return r;
}

_public_ int scache_find_dest(struct scache *scache, const char *destination, int *ret_fd) {
        int r;

        r = finish(scache, scache_start_find_dest(scache, destination));
        if (r >= 0)
                *ret_fd = scache_take_fd(scache);
        return r;
}
