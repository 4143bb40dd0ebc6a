/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agents/user.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "custody/disposal.h"

/* The number of agents to check before one more descriptor is sent. */
#define LOOKS_MAX 16

static bool is_in_flight(const struct flight *flight) {
        int unread;

        return ioctl(flight->fd, SIOCOUTQ, &unread) == 0 && unread > 0;
}

/* Stop counting the descriptors of a flight: they have arrived, or there is no memory to keep the socket. */
static void land(struct users *users, struct user *user, struct flight *flight) {
        TAILQ_REMOVE(&user->flights, flight, siblings);
        account_discharge(users->accounts, user->account, ACCOUNT_IN_FLIGHT, flight->n);
        flight->n = 0;
        if (!flight->alone)
                return;

        TAILQ_REMOVE(&users->alone, flight, by_alone);
        disposal_close(users->disposal, user->account->uid, DISPOSAL_SOCKET, flight->fd);
        free(flight);
        user_release(users, user);
}

void users_init(struct users *users, struct accounts *accounts, struct disposal *disposal) {
        *users = (struct users){ .accounts = accounts, .disposal = disposal };
        TAILQ_INIT(&users->alone);
}

int users_hold(struct users *users, uid_t uid, struct user **ret) {
        struct account *account;
        struct user *user;
        int r;

        r = accounts_hold(users->accounts, uid, &account);
        if (r < 0)
                return r;

        user = account->agents;
        if (user) {
                account_release(users->accounts, account);
        } else {
                user = calloc(1, sizeof(*user));
                if (!user) {
                        account_release(users->accounts, account);
                        return -ENOMEM;
                }
                user->account = account;
                TAILQ_INIT(&user->by_activity);
                TAILQ_INIT(&user->by_memory);
                TAILQ_INIT(&user->flights);
                account->agents = user;
        }

        user->n_holders++;
        *ret = user;
        return 0;
}

void user_release(struct users *users, struct user *user) {
        struct account *account = user->account;

        if (--user->n_holders > 0)
                return;

        account->agents = NULL;
        account_release(users->accounts, account);
        free(user);
}

struct user *users_payer(const struct users *users, enum account_kind kind, struct user *user) {
        const struct account *most = accounts_most(users->accounts, kind);

        if (!most || account_held(most, kind) == 0)
                return NULL;
        return user && account_held(user->account, kind) + 1 >= account_held(most, kind) &&
                        account_held(user->account, kind) > 0
                ? user
                : most->agents;
}

static bool may_send(const struct users *users, const struct user *user) {
        return users->in_flight_max == 0 ||
                account_held(user->account, ACCOUNT_IN_FLIGHT) + users->accounts->total[ACCOUNT_IN_FLIGHT] <
                users->in_flight_max;
}

/* Check which of a user's first agents have read everything, until one more descriptor may be sent to WANTS. */
static void look(struct users *users, struct user *user, const struct user *wants, unsigned n_looks) {
        struct flight *flight, *next;

        for (flight = TAILQ_FIRST(&user->flights); flight && n_looks > 0 && !may_send(users, wants);
                flight = next, n_looks--) {
                next = TAILQ_NEXT(flight, siblings);
                if (!is_in_flight(flight)) {
                        land(users, user, flight);
                } else {
                        /* The next look begins with other agents. */
                        TAILQ_REMOVE(&user->flights, flight, siblings);
                        TAILQ_INSERT_TAIL(&user->flights, flight, siblings);
                }
        }
}

_cold_ static bool may_send_after_a_look(struct users *users, struct user *user) {
        struct user *most;

        look(users, user, user, LOOKS_MAX);
        if (may_send(users, user))
                return true;

        most = users_payer(users, ACCOUNT_IN_FLIGHT, NULL);
        if (most && most != user)
                look(users, most, user, LOOKS_MAX);
        return may_send(users, user);
}

bool user_may_send(struct users *users, struct user *user) {
        return may_send(users, user) || may_send_after_a_look(users, user);
}

void user_sent(struct users *users, struct user *user, struct flight *flight, int fd) {
        if (flight->n++ == 0) {
                flight->fd = fd;
                TAILQ_INSERT_TAIL(&user->flights, flight, siblings);
        }
        account_charge(users->accounts, user->account, ACCOUNT_IN_FLIGHT, 1);
}

bool user_ends(struct users *users, struct user *user, struct flight *flight) {
        struct flight *alone;

        if (flight->n == 0)
                return true;
        if (!is_in_flight(flight)) {
                land(users, user, flight);
                return true;
        }

        alone = malloc(sizeof(*alone));
        if (!alone) {
                land(users, user, flight);
                return true;
        }

        *alone = (struct flight){ .fd = flight->fd, .n = flight->n, .alone = user };
        TAILQ_REMOVE(&user->flights, flight, siblings);
        TAILQ_INSERT_TAIL(&user->flights, alone, siblings);
        TAILQ_INSERT_TAIL(&users->alone, alone, by_alone);
        user->n_holders++;
        return false;
}

bool users_sweep(struct users *users) {
        struct flight *flight;

        for (unsigned i = 0; i < LOOKS_MAX && (flight = TAILQ_FIRST(&users->alone)); i++)
                if (!is_in_flight(flight)) {
                        land(users, flight->alone, flight);
                } else {
                        TAILQ_REMOVE(&users->alone, flight, by_alone);
                        TAILQ_INSERT_TAIL(&users->alone, flight, by_alone);
                }
        return !TAILQ_EMPTY(&users->alone);
}

void users_end(struct users *users) {
        struct flight *flight;

        while ((flight = TAILQ_FIRST(&users->alone)))
                land(users, flight->alone, flight);
}
