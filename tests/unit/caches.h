/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unit: a cache to try things on, with short words for what the tests do */
#pragma once

#include "unit.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "cache/cache.h"
#include "cache/entries.h"

/* Who asks where a test does not care. */
#define USER 10

static const struct siphash_key cache_key = { 3, 4 };

static inline struct cache *new_cache(uint64_t connections, uint64_t bytes) {
        struct cache_limits limits = { .connections = connections, .bytes = bytes };
        struct cache *cache;

        assert_int_equal(cache_new(&cache, &cache_key, &limits), 0);
        return cache;
}

/* Let go of all connections and free. */
static inline void empty_cache(struct cache *cache) {
        struct connection *connection;

        while (cache_let_one_go(cache, DEPARTURE_FLUSHED))
                ;
        while ((connection = cache_next_departed(cache)))
                connection_free(connection);
        assert_int_equal(cache_counts(cache)->connections, 0);
        assert_int_equal(cache_counts(cache)->lent, 0);
        cache_free(cache);
}

/* Park connection FD; it ends TTL after NOW. */
static inline struct connection *park(
        struct cache *cache, uid_t uid, const char *endpoint, int fd, uint64_t now_us, uint64_t ttl_us) {
        struct connection_details details = {
                .scope.uid = uid,
                .saved_by = uid,
                .endpoint = slice_of(endpoint),
                .property = SLICE("property"),
                .farewell = SLICE("QUIT"),
                .ttl_us = ttl_us,
                .deadline_us = now_us + ttl_us,
                .fd = fd,
        };
        struct connection *connection;

        assert_int_equal(cache_save_endpoint(cache, &details, &connection), 0);
        assert_int_equal(connection->fd, fd);
        return connection;
}

static inline void bind_to(struct cache *cache, uid_t uid, const char *destination, const char *property,
        const char *endpoint, uint64_t now_us, uint64_t ttl_us) {
        struct binding_details details = {
                .scope.uid = uid,
                .saved_by = uid,
                .destination = slice_of(destination),
                .property = slice_of(property),
                .endpoint = slice_of(endpoint),
                .ttl_us = ttl_us,
                .deadline_us = now_us + ttl_us,
        };

        assert_int_equal(cache_save_destination(cache, &details), 0);
}

/* Take what is there for good. Returns its descriptor, or -1. */
static inline int give(struct cache *cache, struct connection *connection) {
        int fd;

        if (!connection)
                return -1;

        assert_int_equal(connection->state, CONNECTION_LENT);
        fd = connection->fd;
        cache_give(cache, connection);
        assert_int_equal(connection->state, CONNECTION_DEPARTED);
        connection_free(connection);
        return fd;
}

static inline int take_endpoint(struct cache *cache, uid_t uid, const char *endpoint, uint64_t now_us) {
        return give(
                cache, cache_find_endpoint(cache, (struct scope){ .uid = uid }, slice_of(endpoint), now_us));
}

static inline int take_destination(
        struct cache *cache, uid_t uid, const char *destination, uint64_t now_us) {
        struct slice property;

        return give(cache,
                cache_find_destination(
                        cache, (struct scope){ .uid = uid }, slice_of(destination), now_us, &property));
}

/* The next one that departed, -1 if there is none. */
static inline int departed(struct cache *cache, enum departure why) {
        struct connection *connection = cache_next_departed(cache);
        int fd;

        if (!connection)
                return -1;

        assert_int_equal(connection->departure, why);
        fd = connection->fd;
        connection_free(connection);
        return fd;
}
