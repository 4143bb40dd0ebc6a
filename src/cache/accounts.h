/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cache: an account for each user: how much of everything that is limited the user holds, and which user holds most */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "cache/deadlines.h"
#include "cache/heap.h"
#include "cache/table.h"

/* At a limit the user who holds most gives way. So a user who holds less than the limit divided by the number of those who
 * hold something loses nothing to others. No cost grows with the number of users, but for a heap's. */

enum account_kind {
        ACCOUNT_CONNECTIONS, /* parked and lent */
        ACCOUNT_BYTES,       /* of memory for connections, bindings and labels */
        ACCOUNT_AGENTS,      /* connected */
        ACCOUNT_BUFFERS,     /* bytes that agents have sent in part, or have not yet read */
        ACCOUNT_IN_FLIGHT,   /* descriptors that were sent to agents and may not have arrived */
        _ACCOUNT_KIND_MAX,
};

struct account {
        struct table_entry by_uid;
        uid_t uid;
        unsigned n_holders;                          /* kinds of which it holds something, and holders */
        struct heap_item by_held[_ACCOUNT_KIND_MAX]; /* keys are ~held: who holds most is first */
        struct deadline_set connections;             /* saved by this user */
        struct deadline_set bindings;
        void *agents; /* of the room above: what it knows of this user's agents */
};

struct accounts {
        struct table by_uid;
        struct account *recent; /* the last one asked for, or NULL */
        struct heap by_held[_ACCOUNT_KIND_MAX];
        uint64_t total[_ACCOUNT_KIND_MAX];
        uint64_t n_users[_ACCOUNT_KIND_MAX]; /* who hold something */
        struct deadlines connections;
        struct deadlines bindings;
};

/* Initialise. KEY must stay where it is. Returns -ENOMEM; then, too, there may be something to release. */
int accounts_init(struct accounts *accounts, const struct siphash_key *key);

/* Release the memory when there are no accounts any more. */
void accounts_deinit(struct accounts *accounts);

/* Return the account of a user, NULL if there is none. */
struct account *accounts_find(struct accounts *accounts, uid_t uid);

/* The slow parts of the next two. */
int accounts_look_up(struct accounts *accounts, uid_t uid, struct account **ret);
_cold_ void account_free(struct accounts *accounts, struct account *account);

/* Find or make the account of a user, and keep it until account_release(). Returns -ENOMEM. */
static inline int accounts_hold(struct accounts *accounts, uid_t uid, struct account **ret) {
        struct account *account = accounts->recent;

        if (!account || account->uid != uid)
                return accounts_look_up(accounts, uid, ret);

        account->n_holders++;
        *ret = account;
        return 0;
}

/* An account is freed when nobody keeps it and it holds nothing. */
static inline void account_release(struct accounts *accounts, struct account *account) {
        if (--account->n_holders == 0)
                account_free(accounts, account);
}

static inline uint64_t account_held(const struct account *account, enum account_kind kind) {
        return ~account->by_held[kind].key;
}

/* The user holds N more, or less. The latter may free the account. */
static inline void account_charge(
        struct accounts *accounts, struct account *account, enum account_kind kind, uint64_t n) {
        struct heap_item *item = &account->by_held[kind];

        if (n == 0)
                return;
        if (account_held(account, kind) == 0) {
                account->n_holders++;
                accounts->n_users[kind]++;
        }
        accounts->total[kind] += n;
        heap_set(&accounts->by_held[kind], item, item->key - n);
}

static inline void account_discharge(
        struct accounts *accounts, struct account *account, enum account_kind kind, uint64_t n) {
        struct heap_item *item = &account->by_held[kind];

        if (n == 0)
                return;
        accounts->total[kind] -= n;
        heap_set(&accounts->by_held[kind], item, item->key + n);
        if (account_held(account, kind) == 0) {
                accounts->n_users[kind]--;
                account_release(accounts, account);
        }
}

/* Return who holds most, NULL if there are no accounts. */
struct account *accounts_most(const struct accounts *accounts, enum account_kind kind);

/* Return whether a user holds less than its share of LIMIT. */
bool account_is_modest(const struct accounts *accounts, const struct account *account,
        enum account_kind kind, uint64_t limit);
