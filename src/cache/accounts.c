/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/accounts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* User ids need no keyed hash: agents cannot choose them. */
static uint64_t uid_hash(uid_t uid) {
        return (uid * UINT64_C(0x9e3779b97f4a7c15)) >> 32;
}

static struct account *account_of(struct table_entry *entry) {
        return entry ? CONTAINER_OF(entry, struct account, by_uid) : NULL;
}

static bool account_matches(const struct table_entry *entry, const void *key) {
        return CONTAINER_OF(entry, struct account, by_uid)->uid == *(const uid_t *) key;
}

int accounts_init(struct accounts *accounts, const struct siphash_key *key) {
        int r;

        *accounts = (struct accounts){};
        r = table_init(&accounts->by_uid);
        if (r >= 0)
                r = deadlines_init(&accounts->connections, key);
        if (r >= 0)
                r = deadlines_init(&accounts->bindings, key);
        return r;
}

void accounts_deinit(struct accounts *accounts) {
        deadlines_deinit(&accounts->connections);
        deadlines_deinit(&accounts->bindings);
        for (unsigned kind = 0; kind < _ACCOUNT_KIND_MAX; kind++)
                heap_deinit(&accounts->by_held[kind]);
        table_deinit(&accounts->by_uid);
}

struct account *accounts_find(struct accounts *accounts, uid_t uid) {
        if (!accounts->recent || accounts->recent->uid != uid)
                accounts->recent =
                        account_of(table_find(&accounts->by_uid, uid_hash(uid), account_matches, &uid));
        return accounts->recent;
}

static int account_new(struct accounts *accounts, uid_t uid, struct account **ret) {
        _cleanup_(freep) struct account *account = NULL;
        int r;

        for (unsigned kind = 0; kind < _ACCOUNT_KIND_MAX; kind++) {
                r = heap_reserve(&accounts->by_held[kind], accounts->by_uid.n_entries + 1);
                if (r < 0)
                        return r;
        }

        account = calloc(1, sizeof(*account));
        if (!account)
                return -ENOMEM;

        r = deadline_set_init(&account->connections, &accounts->connections);
        if (r < 0)
                return r;
        r = deadline_set_init(&account->bindings, &accounts->bindings);
        if (r < 0) {
                deadline_set_deinit(&account->connections);
                return r;
        }

        account->uid = uid;
        for (unsigned kind = 0; kind < _ACCOUNT_KIND_MAX; kind++)
                heap_add(&accounts->by_held[kind], &account->by_held[kind], ~UINT64_C(0));
        table_add(&accounts->by_uid, &account->by_uid, uid_hash(uid));
        accounts->recent = account;
        *ret = STEAL(account);
        return 0;
}

void account_free(struct accounts *accounts, struct account *account) {
        assert(!account->agents);

        if (accounts->recent == account)
                accounts->recent = NULL;
        for (unsigned kind = 0; kind < _ACCOUNT_KIND_MAX; kind++)
                heap_remove(&accounts->by_held[kind], &account->by_held[kind]);
        table_remove(&accounts->by_uid, &account->by_uid);
        deadline_set_deinit(&account->connections);
        deadline_set_deinit(&account->bindings);
        free(account);
}

int accounts_look_up(struct accounts *accounts, uid_t uid, struct account **ret) {
        struct account *account = accounts_find(accounts, uid);
        int r;

        if (!account) {
                r = account_new(accounts, uid, &account);
                if (r < 0)
                        return r;
        }

        account->n_holders++;
        *ret = account;
        return 0;
}

struct account *accounts_most(const struct accounts *accounts, enum account_kind kind) {
        struct heap_item *first = heap_first(&accounts->by_held[kind]);

        return first ? CONTAINER_OF(first - kind, struct account, by_held[0]) : NULL;
}

bool account_is_modest(const struct accounts *accounts, const struct account *account,
        enum account_kind kind, uint64_t limit) {
        uint64_t held = account_held(account, kind), n_users = accounts->n_users[kind] + (held == 0);

        return held < limit / n_users;
}
