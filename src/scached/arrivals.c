/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scached/arrivals.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "agents/agents.h"
#include "agents/server.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "custody/disposal.h"
#include "daemon/timer.h"
#include "epochs/epochs.h"

/* How long to wait for the epoch of an agent. Postfix gives up after 5 s (connection_cache_protocol_timeout). */
#define PATIENCE_US USEC_PER_SEC

/* At most so many agents wait for their epoch. For one more, the first of them is served without. */
#define ARRIVALS_MAX 256

struct arrival {
        struct arrivals *all;
        int fd;
        enum dialect dialect;
        uint64_t until_us;
        struct epoch_inquiry *inquiry;
        TAILQ_ENTRY(arrival) siblings;
};

TAILQ_HEAD(arrival_list, arrival);

struct arrivals {
        struct server *server;
        struct agents *agents;
        struct disposal *disposal;
        struct epochs *epochs;
        struct arrival_list list; /* oldest first */
        size_t n;
        struct loop_timer timer;
};

static void serve(struct arrivals *arrivals, int fd, enum dialect dialect, struct epoch epoch) {
        int r = agents_add(arrivals->agents, fd, dialect, epoch);

        if (r < 0 && r != -EPIPE && r != -ECONNRESET)
                journal_say(arrivals->server->journal, ACCEPT_FAILED, NULL, "Could not serve an agent: %s.",
                        strerror(-r));
}

/* Remove an agent from the list, and return its socket. */
static int leave(struct arrival *arrival) {
        int fd = arrival->fd;

        TAILQ_REMOVE(&arrival->all->list, arrival, siblings);
        arrival->all->n--;
        free(arrival);
        return fd;
}

static void serve_unknown(struct arrivals *arrivals, struct arrival *arrival, bool late) {
        enum dialect dialect = arrival->dialect;

        epoch_forget(arrival->inquiry, late);
        serve(arrivals, leave(arrival), dialect, epoch_unknown());
}

static void on_answer(void *userdata, struct epoch epoch) {
        struct arrival *arrival = userdata;
        struct arrivals *arrivals = arrival->all;
        enum dialect dialect = arrival->dialect;

        serve(arrivals, leave(arrival), dialect, epoch);
}

static void on_timer(void *userdata) {
        struct arrivals *arrivals = userdata;
        uint64_t now = clock_now(CLOCK_BOOTTIME);
        struct arrival *arrival;

        while ((arrival = TAILQ_FIRST(&arrivals->list)) && arrival->until_us <= now)
                serve_unknown(arrivals, arrival, true);
        if (arrival)
                loop_timer_set(&arrivals->timer, arrival->until_us);
}

int arrivals_new(struct arrivals **ret, struct server *server, struct agents *agents,
        struct disposal *disposal, struct epochs *epochs) {
        struct arrivals *arrivals;
        int r;

        arrivals = calloc(1, sizeof(*arrivals));
        if (!arrivals)
                return -ENOMEM;

        arrivals->server = server;
        arrivals->agents = agents;
        arrivals->disposal = disposal;
        arrivals->epochs = epochs;
        TAILQ_INIT(&arrivals->list);
        r = loop_timer_init(&arrivals->timer, server->loop, on_timer, arrivals);
        if (r < 0) {
                arrivals_free(arrivals);
                return r;
        }

        *ret = arrivals;
        return 0;
}

struct arrivals *arrivals_free(struct arrivals *arrivals) {
        struct arrival *arrival;

        if (!arrivals)
                return NULL;

        while ((arrival = TAILQ_FIRST(&arrivals->list))) {
                epoch_forget(arrival->inquiry, false);
                disposal_close(arrivals->disposal, 0, DISPOSAL_SOCKET, leave(arrival));
        }
        loop_timer_release(&arrivals->timer);
        free(arrivals);
        return NULL;
}

/* Ask for the epoch of an agent. Takes the socket, unless it fails. */
static int ask(struct arrivals *arrivals, int fd, enum dialect dialect, const char *queue) {
        struct ucred credentials = { .uid = (uid_t) -1 };
        socklen_t size = sizeof(credentials);
        struct epoch_question question = {
                .fd = fd, .queue = queue, .directories = arrivals->server->settings->postfix_directories
        };
        struct arrival *arrival;
        int r;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
                return -errno;
        question.subject = (struct journal_subject){ dialect_name(dialect), credentials.pid, credentials.uid,
                (struct slice){} };

        arrival = malloc(sizeof(*arrival));
        if (!arrival)
                return -ENOMEM;

        *arrival = (struct arrival){
                .all = arrivals,
                .fd = fd,
                .dialect = dialect,
                .until_us = usec_add(clock_now(CLOCK_BOOTTIME), PATIENCE_US),
        };
        r = epoch_ask(arrivals->epochs, &question, on_answer, arrival, &arrival->inquiry);
        if (r < 0) {
                free(arrival);
                return r;
        }

        TAILQ_INSERT_TAIL(&arrivals->list, arrival, siblings);
        arrivals->n++;
        if (!loop_timer_is_set(&arrivals->timer))
                loop_timer_set(&arrivals->timer, arrival->until_us);
        return 0;
}

void arrivals_take(struct arrivals *arrivals, int fd, enum dialect dialect, const char *queue) {
        if (!queue || !arrivals->server->settings->epochs) {
                serve(arrivals, fd, dialect, (struct epoch){});
                return;
        }

        if (arrivals->n >= ARRIVALS_MAX)
                serve_unknown(arrivals, TAILQ_FIRST(&arrivals->list), true);
        if (ask(arrivals, fd, dialect, queue) < 0)
                serve(arrivals, fd, dialect, epoch_unknown());
}

void arrivals_hurry(struct arrivals *arrivals) {
        struct arrival *arrival;

        while ((arrival = TAILQ_FIRST(&arrivals->list)))
                serve_unknown(arrivals, arrival, false);
}
