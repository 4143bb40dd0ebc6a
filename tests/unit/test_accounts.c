/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who holds most, against looking at everybody. */

#include "unit.h"

#include "cache/accounts.h"

#define USERS 60

static const struct siphash_key key = { 1, 2 };

static int set_up(void **state) {
        static struct accounts accounts;

        *state = &accounts;
        return accounts_init(&accounts, &key);
}

static int tear_down(void **state) {
        struct accounts *accounts = *state;

        assert_int_equal(accounts->by_uid.n_entries, 0);
        accounts_deinit(accounts);
        return 0;
}

static void check(struct accounts *accounts, const uint64_t held[USERS][_ACCOUNT_KIND_MAX]) {
        for (enum account_kind kind = 0; kind < _ACCOUNT_KIND_MAX; kind++) {
                const struct account *most = accounts_most(accounts, kind);
                uint64_t top = 0, total = 0, n_users = 0;

                for (uid_t uid = 0; uid < USERS; uid++) {
                        const struct account *account = accounts_find(accounts, uid);

                        top = MAX(top, held[uid][kind]);
                        total += held[uid][kind];
                        n_users += held[uid][kind] > 0;
                        assert_int_equal(account ? account_held(account, kind) : 0, held[uid][kind]);
                }
                assert_int_equal(most ? account_held(most, kind) : 0, top);
                assert_int_equal(accounts->total[kind], total);
                assert_int_equal(accounts->n_users[kind], n_users);
        }
}

static void test_random_operations(void **state) {
        static uint64_t held[USERS][_ACCOUNT_KIND_MAX];
        struct accounts *accounts = *state;
        uint64_t seed = 7;

        for (unsigned step = 0; step < 20000; step++) {
                uid_t uid = (uid_t) (next_random(&seed) % USERS);
                enum account_kind kind = (enum account_kind)(next_random(&seed) % _ACCOUNT_KIND_MAX);
                uint64_t n = next_random(&seed) % 4;
                struct account *account;

                assert_int_equal(accounts_hold(accounts, uid, &account), 0);
                assert_int_equal(account->uid, uid);
                if (next_random(&seed) % 5 > 1) {
                        account_charge(accounts, account, kind, n);
                        held[uid][kind] += n;
                } else {
                        n = next_random(&seed) % 8 == 0 ? held[uid][kind] : MIN(n, held[uid][kind]);
                        account_discharge(accounts, account, kind, n);
                        held[uid][kind] -= n;
                }
                account_release(accounts, account);
                if (step % 100 == 0)
                        check(accounts, held);
        }

        for (uid_t uid = 0; uid < USERS; uid++)
                for (enum account_kind kind = 0; kind < _ACCOUNT_KIND_MAX; kind++)
                        if (held[uid][kind] > 0)
                                account_discharge(
                                        accounts, accounts_find(accounts, uid), kind, held[uid][kind]);
}

/* An account is there for as long as somebody keeps it, or it holds something. */
static void test_life(void **state) {
        struct accounts *accounts = *state;
        struct account *account, *again;

        assert_null(accounts_most(accounts, ACCOUNT_AGENTS));
        assert_int_equal(accounts_hold(accounts, 5, &account), 0);
        assert_int_equal(accounts_hold(accounts, 5, &again), 0);
        assert_ptr_equal(account, again);
        account_charge(accounts, account, ACCOUNT_AGENTS, 2);
        account_release(accounts, account);
        account_release(accounts, account);
        assert_ptr_equal(accounts_find(accounts, 5), account);
        assert_null(accounts_find(accounts, 6));
        account_discharge(accounts, account, ACCOUNT_AGENTS, 1);
        assert_ptr_equal(accounts_find(accounts, 5), account);
        account_discharge(accounts, account, ACCOUNT_AGENTS, 1);
        assert_null(accounts_find(accounts, 5));
}

/* The share is the limit divided by those who hold something, the one who is asked about among them. */
static void test_shares(void **state) {
        struct accounts *accounts = *state;
        struct account *account[3];

        for (uid_t uid = 0; uid < 3; uid++)
                assert_int_equal(accounts_hold(accounts, uid, &account[uid]), 0);
        assert_true(account_is_modest(accounts, account[0], ACCOUNT_BYTES, 10));
        account_charge(accounts, account[0], ACCOUNT_BYTES, 10);
        assert_false(account_is_modest(accounts, account[0], ACCOUNT_BYTES, 10));
        account_charge(accounts, account[1], ACCOUNT_BYTES, 4);
        assert_true(account_is_modest(accounts, account[1], ACCOUNT_BYTES, 10));
        account_charge(accounts, account[1], ACCOUNT_BYTES, 1);
        assert_false(account_is_modest(accounts, account[1], ACCOUNT_BYTES, 10));
        assert_true(account_is_modest(accounts, account[2], ACCOUNT_BYTES, 10));

        account_discharge(accounts, account[0], ACCOUNT_BYTES, 10);
        account_discharge(accounts, account[1], ACCOUNT_BYTES, 5);
        for (uid_t uid = 0; uid < 3; uid++)
                account_release(accounts, account[uid]);
}

int main(void) {
#define WITH_ACCOUNTS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                WITH_ACCOUNTS(test_random_operations),
                WITH_ACCOUNTS(test_life),
                WITH_ACCOUNTS(test_shares),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
