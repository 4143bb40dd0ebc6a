#include "custody/custody.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "daemon/timer.h"

/* How long a peer may take to answer a farewell and hang up. */
#define LEAVING_TIME_US (UINT64_C(5) * USEC_PER_SEC)

/* How many connections are let go of at once. */
#define LET_GO_BATCH 256

/* How many bytes of an answer to a farewell are taken at once, to be thrown away. */
#define ANSWER_MAX 4096

/* A parked peer has nothing to say: whatever comes means that the connection is not what it was. Urgent data is no
 * exception, and comes without EPOLLIN. */
#define PARKED_EVENTS (EPOLLIN | EPOLLPRI | EPOLLRDHUP)

/* Of a connection's owner_bits: it is in the list of those that wait for their peer. */
#define BIT_LEAVING 1

struct custody {
        struct loop *loop;
        struct cache *cache;
        struct statistics *statistics;
        struct connection_list leaving; /* first to time out first; `deadline.at_us` is when */
        size_t n_leaving;
        size_t leaving_max;
        struct loop_timer timer; /* for the first of them */
};

/* A TCP socket with SO_LINGER would make close(2) wait for its peer. Whoever holds the socket too can set that at any
 * time, so it is taken off last. */
void custody_close(int fd) {
        static const struct linger off = {};

        (void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
        (void) close(fd);
}

static void close_at_once(struct connection *connection) {
        custody_close(connection->fd);
        connection_free(connection);
}

static void unwatch_and_close(struct custody *custody, struct connection *connection) {
        loop_remove(custody->loop, connection->fd, connection);
        close_at_once(connection);
}

static void leave(struct custody *custody, struct connection *connection) {
        TAILQ_REMOVE(&custody->leaving, connection, siblings);
        custody->n_leaving--;
        unwatch_and_close(custody, connection);
}

static void on_timer(void *userdata) {
        struct custody *custody = userdata;
        uint64_t now = clock_now(CLOCK_BOOTTIME);
        struct connection *connection;

        while ((connection = TAILQ_FIRST(&custody->leaving)) && connection->deadline.at_us <= now)
                leave(custody, connection);

        if (connection)
                loop_timer_set(&custody->timer, connection->deadline.at_us);
}

/* Say the farewell. Returns whether it is worth waiting for an answer. */
static bool say_farewell(struct custody *custody, struct connection *connection) {
        struct slice farewell = connection_farewell(connection);
        char byte;

        if (farewell.size == 0)
                return false;

        /* A peer that has hung up or said goodbye itself gets none. */
        if (recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN)
                return false;

        if (send(connection->fd, farewell.data, farewell.size, MSG_DONTWAIT | MSG_NOSIGNAL) !=
                (ssize_t) farewell.size)
                return false;

        custody->statistics->total.farewells++;
        return true;
}

/* A peer answers a farewell, or hangs up. */
static void on_answer(struct custody *custody, struct connection *connection, uint32_t events) {
        char answer[ANSWER_MAX];
        ssize_t n;

        /* Urgent data and queued errors are no answer to wait for, and would be reported until somebody reads them.
         * */
        if (events & (EPOLLPRI | EPOLLERR | EPOLLHUP)) {
                leave(custody, connection);
                return;
        }

        n = recv(connection->fd, answer, sizeof(answer), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                leave(custody, connection);
}

static void on_ready(void *userdata, void *object, uint32_t events) {
        struct custody *custody = userdata;
        struct connection *connection = object;

        if (connection->state == CONNECTION_PARKED) {
                cache_remove(custody->cache, connection);
                custody->statistics->total.connections_dead++;
                unwatch_and_close(custody, connection);
        } else if (connection->owner_bits & BIT_LEAVING)
                on_answer(custody, connection, events);

        /* Else it has departed, and will be let go of when its turn comes. */
}

int custody_new(struct custody **ret, struct loop *loop, struct cache *cache, struct statistics *statistics,
        size_t leaving_max) {
        struct custody *custody;
        int r;

        custody = calloc(1, sizeof(*custody));
        if (!custody)
                return -ENOMEM;

        custody->loop = loop;
        custody->cache = cache;
        custody->statistics = statistics;
        custody->leaving_max = leaving_max;
        TAILQ_INIT(&custody->leaving);

        r = loop_timer_init(&custody->timer, loop, on_timer, custody);
        if (r < 0) {
                custody_free(custody);
                return r;
        }

        loop_on_ready(loop, LOOP_CONNECTION, on_ready, custody);
        *ret = custody;
        return 0;
}

struct custody *custody_free(struct custody *custody) {
        struct connection *connection;

        if (!custody)
                return NULL;

        while ((connection = TAILQ_FIRST(&custody->leaving)))
                leave(custody, connection);
        loop_timer_release(&custody->timer);
        free(custody);
        return NULL;
}

int custody_check(int fd) {
        socklen_t size = sizeof(int);
        int type;

        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ? -errno : 0;
}

static int watch(struct custody *custody, struct connection *connection) {
        return loop_add(custody->loop, connection->fd, LOOP_CONNECTION, connection, PARKED_EVENTS);
}

int custody_save(struct custody *custody, const struct connection_details *details) {
        struct connection *connection;
        int r;

        r = cache_save_endpoint(custody->cache, details, &connection);
        if (r < 0)
                return r;

        r = watch(custody, connection);
        if (r < 0) {
                cache_remove(custody->cache, connection);
                connection_free(connection);
        }
        return r;
}

void custody_lend(struct custody *custody, struct connection *connection) {
        loop_remove(custody->loop, connection->fd, connection);
}

void custody_give(struct custody *custody, struct connection *connection) {
        cache_give(custody->cache, connection);
        close_at_once(connection);
}

void custody_take_back(struct custody *custody, struct connection *connection) {
        custody->statistics->total.connections_returned++;
        if (watch(custody, connection) < 0) {
                cache_give(custody->cache, connection);
                close_at_once(connection);
                return;
        }

        cache_take_back(custody->cache, connection, loop_now(custody->loop));
}

void custody_release(struct custody *custody, struct connection *connection) {
        cache_remove(custody->cache, connection);
        unwatch_and_close(custody, connection);
}

/* Wait for the peer's answer to a farewell. */
static void await_answer(struct custody *custody, struct connection *connection) {
        if (custody->n_leaving >= custody->leaving_max)
                leave(custody, TAILQ_FIRST(&custody->leaving));

        connection->owner_bits |= BIT_LEAVING;
        connection->deadline.at_us = usec_add(loop_now(custody->loop), LEAVING_TIME_US);
        TAILQ_INSERT_TAIL(&custody->leaving, connection, siblings);
        custody->n_leaving++;
        if (!loop_timer_is_set(&custody->timer))
                loop_timer_set(&custody->timer, connection->deadline.at_us);
}

static void count_departure(struct statistics_counters *total, enum departure why) {
        uint64_t *const counters[_DEPARTURE_MAX] = {
                [DEPARTURE_EXPIRED] = &total->connections_expired,
                [DEPARTURE_LIMIT] = &total->connections_evicted,
                [DEPARTURE_FLUSHED] = &total->connections_flushed,
        };

        (*counters[why])++;
}

bool custody_let_go(struct custody *custody) {
        for (unsigned i = 0; i < LET_GO_BATCH; i++) {
                struct connection *connection = cache_next_departed(custody->cache);

                if (!connection)
                        return false;

                count_departure(&custody->statistics->total, (enum departure) connection->departure);
                if (say_farewell(custody, connection))
                        await_answer(custody, connection);
                else
                        unwatch_and_close(custody, connection);
        }

        return true;
}

bool custody_hurry(struct custody *custody) {
        struct connection *connection = TAILQ_FIRST(&custody->leaving);

        if (!connection)
                return false;

        leave(custody, connection);
        return true;
}

bool custody_make_room(struct custody *custody) {
        bool made_room = cache_let_one_go(custody->cache, DEPARTURE_LIMIT);

        (void) custody_let_go(custody);
        return custody_hurry(custody) || made_room;
}

size_t custody_leaving(const struct custody *custody) {
        return custody->n_leaving;
}
