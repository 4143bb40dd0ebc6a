/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: the agents of each user, and the descriptors that are on their way to them */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "cache/accounts.h"
#include "custody/disposal.h"

/* A descriptor that was sent counts against our limit on open files until the agent has read it, or has closed its socket:
 * whoever asks and never reads would use the limit up for everybody (ETOOMANYREFS). So they are counted by user, also those
 * of agents that were disconnected, whose sockets are kept for that. The kernel tells only whether an agent has read all that was
 * sent to it, and asking costs a system call: it is asked when the count comes to the limit, and until then takes none to
 * have arrived. */

TAILQ_HEAD(agent_list, agent);
TAILQ_HEAD(flight_list, flight);

/* Descriptors sent to one agent. All zero is none. */
struct flight {
        int fd; /* the agent's socket */
        uint32_t n;
        struct user *alone; /* of this user, whose agent was disconnected */
        TAILQ_ENTRY(flight) siblings;
        TAILQ_ENTRY(flight) by_alone;
};

struct user {
        struct account *account;
        unsigned n_holders;
        struct agent_list by_activity; /* who has said nothing for longest is first */
        struct agent_list by_memory;   /* with large buffers, for longest first */
        struct flight_list flights;    /* the first descriptor longest ago first */
};

/* All users that have agents. */
struct users {
        struct accounts *accounts;
        struct disposal *disposal; /* for sockets that are kept no longer */
        uint64_t in_flight_max;    /* 0: no limit */
        struct flight_list alone;  /* of agents that were disconnected */
};

/* Initialise. ACCOUNTS and DISPOSAL must outlive it. */
void users_init(struct users *users, struct accounts *accounts, struct disposal *disposal);

/* Find or make the user with this id, and keep it until user_release(). Returns -ENOMEM. */
int users_hold(struct users *users, uid_t uid, struct user **ret);
void user_release(struct users *users, struct user *user);

/* Return who gives way so that USER (NULL: nobody) may hold one more of KIND: who then holds most. NULL if that is nobody. */
struct user *users_payer(const struct users *users, enum account_kind kind, struct user *user);

/* Return whether one more descriptor may be sent to an agent of this user: it must have less on their way than all users
 * together may have more. So no number of users comes to the limit. */
bool user_may_send(struct users *users, struct user *user);

/* A descriptor was sent to the agent with this socket. */
void user_sent(struct users *users, struct user *user, struct flight *flight, int fd);

/* The agent is to be disconnected, and its socket was shut down. Returns whether that may be closed; if not, it is kept here
 * until the descriptors that were sent have arrived. */
bool user_ends(struct users *users, struct user *user, struct flight *flight);

/* Look at some of the sockets that are kept. Returns whether any are left. */
bool users_sweep(struct users *users);

/* Close all sockets that are kept, and count nothing more. */
void users_end(struct users *users);
