/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "custody/farewell.h"

/* The most connections that are let go at once. */
#define LET_GO_BATCH 256

/* The peer of a parked connection should send nothing: after any bytes, the connection is no longer usable. Urgent data comes
 * without EPOLLIN. */
#define PARKED_EVENTS (EPOLLIN | EPOLLPRI | EPOLLRDHUP)

struct custody {
        struct loop *loop;
        struct cache *cache;
        struct statistics *statistics;
        struct disposal *disposal;
        struct farewells farewells;
};

/* Close a connection that is out of the cache, without a farewell. */
static void end(struct custody *custody, struct connection *connection) {
        disposal_close(custody->disposal, connection->uid, DISPOSAL_PASSED, connection->fd);
        connection_free(connection);
}

static void on_ready(void *userdata, void *object, uint32_t events) {
        struct custody *custody = userdata;
        struct connection *connection = object;

        if (connection->state == CONNECTION_PARKED) {
                uint64_t now_us = loop_now(custody->loop);

                custody->statistics->total.connections_dead++;
                statistics_count_time(&custody->statistics->total, STATISTICS_DEAD_IDLE,
                        connection_idle(connection, now_us));
                cache_tell_time(custody->cache, now_us);
                cache_bury(custody->cache, connection);
                loop_remove(custody->loop, connection->fd, connection);
                end(custody, connection);
        } else
                farewells_ready(&custody->farewells, connection, events);
}

int custody_new(struct custody **ret, struct loop *loop, struct cache *cache, struct statistics *statistics,
        struct disposal *disposal, size_t leaving_max) {
        struct custody *custody;
        int r;

        custody = calloc(1, sizeof(*custody));
        if (!custody)
                return -ENOMEM;

        custody->loop = loop;
        custody->cache = cache;
        custody->statistics = statistics;
        custody->disposal = disposal;
        r = farewells_init(&custody->farewells, loop, statistics, disposal, leaving_max);
        if (r < 0) {
                custody_free(custody);
                return r;
        }

        loop_on_ready(loop, LOOP_CONNECTION, on_ready, custody);
        *ret = custody;
        return 0;
}

struct custody *custody_free(struct custody *custody) {
        if (!custody)
                return NULL;

        farewells_release(&custody->farewells);
        free(custody);
        return NULL;
}

static int watch(struct custody *custody, struct connection *connection) {
        return loop_add(custody->loop, connection->fd, LOOP_CONNECTION, connection, PARKED_EVENTS);
}

static int save(struct custody *custody, const struct connection_details *details, struct connection **ret) {
        int r;

        cache_tell_time(custody->cache, loop_now(custody->loop));
        r = cache_save_endpoint(custody->cache, details, ret);
        if (r < 0)
                return r;

        r = watch(custody, *ret);
        if (r < 0) {
                cache_remove(custody->cache, *ret);
                connection_free(*ret);
        }
        return r;
}

int custody_save(struct custody *custody, const struct connection_details *details) {
        struct connection *connection;

        return save(custody, details, &connection);
}

int custody_decline(struct custody *custody, const struct connection_details *details) {
        struct connection *connection;
        int r;

        r = save(custody, details, &connection);
        if (r >= 0)
                cache_let_go(custody->cache, connection, DEPARTURE_OUTDATED);
        return r;
}

void custody_lend(struct custody *custody, struct connection *connection) {
        loop_remove(custody->loop, connection->fd, connection);
}

void custody_give(struct custody *custody, struct connection *connection) {
        cache_give(custody->cache, connection);
        end(custody, connection);
}

void custody_take_back(struct custody *custody, struct connection *connection) {
        custody->statistics->total.connections_returned++;
        if (watch(custody, connection) < 0)
                custody_give(custody, connection);
        else
                cache_take_back(custody->cache, connection, loop_now(custody->loop));
}

/* Close our copy of a socket that others keep. */
static void close_kept(struct custody *custody, struct connection *connection) {
        loop_remove(custody->loop, connection->fd, connection);
        disposal_close_kept(custody->disposal, connection->uid, connection->fd);
        connection_free(connection);
}

void custody_release(struct custody *custody, struct connection *connection) {
        cache_remove(custody->cache, connection);
        close_kept(custody, connection);
}

static void count_departure(struct statistics_counters *total, enum departure why) {
        uint64_t *const counters[_DEPARTURE_MAX] = {
                [DEPARTURE_EXPIRED] = &total->connections_expired,
                [DEPARTURE_LIMIT] = &total->connections_evicted,
                [DEPARTURE_FLUSHED] = &total->connections_flushed,
                [DEPARTURE_REPLACED] = &total->connections_replaced,
                [DEPARTURE_OUTDATED] = &total->connections_outdated,
        };

        (*counters[why])++;
}

bool custody_let_go(struct custody *custody) {
        for (unsigned i = 0; i < LET_GO_BATCH; i++) {
                struct connection *connection = cache_next_departed(custody->cache);

                if (!connection)
                        return false;

                count_departure(&custody->statistics->total, (enum departure) connection->departure);
                /* The socket of a replaced connection is parked again: send nothing on it. */
                if (connection->departure == DEPARTURE_REPLACED)
                        close_kept(custody, connection);
                else
                        farewells_say(&custody->farewells, connection);
        }

        return true;
}

void custody_hurry(struct custody *custody, bool in_hurry) {
        custody->farewells.in_hurry = in_hurry;
}

bool custody_make_room(struct custody *custody) {
        bool made_room;

        cache_tell_time(custody->cache, loop_now(custody->loop));
        made_room = cache_let_one_go(custody->cache, DEPARTURE_LIMIT);
        custody_hurry(custody, true);
        (void) custody_let_go(custody);
        custody_hurry(custody, false);
        disposal_hurry(custody->disposal);
        return farewells_hurry(&custody->farewells) || made_room;
}

size_t custody_closing(const struct custody *custody) {
        return disposal_waiting(custody->disposal);
}

size_t custody_leaving(const struct custody *custody) {
        return custody->farewells.n_waiting + custody->farewells.n_saying;
}
