/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How descriptors are shared out. */

#include "unit.h"

#include "base/cleanup.h"
#include "daemon/limits.h"

/* What is promised together fits the table, with something to spare for the daemon's own. */
TEST(test_fits) {
        static const uint64_t wishes[] = { 0, 1, 10, 100, 5000, 100000, 10000000, UINT64_MAX };

        for (uint64_t n = 64; n <= UINT64_C(1) << 30; n += n / 3)
                for (size_t i = 0; i < ELEMENTSOF(wishes); i++)
                        for (size_t j = 0; j < ELEMENTSOF(wishes); j++) {
                                struct limits limits = limits_share(n, wishes[i], wishes[j]);

                                assert_true(limits.connections >= 1);
                                assert_true(limits.agents >= 1);
                                assert_true(limits.leaving >= 1);
                                assert_true(limits.in_flight >= 1);
                                assert_true(limits.closing >= 1);
                                /* From 1,024 on, there is room for all that a message brings, too. */
                                assert_true(limits.connections + 2 * limits.agents + limits.leaving +
                                                limits.closing + (n >= 1024 ? 253 : 0) + 32 <=
                                        n);
                                /* A restart sends all connections, whatever agents have not read. */
                                assert_true(limits.connections + limits.in_flight <= n);
                                if (wishes[i] > 0)
                                        assert_true(limits.connections <= wishes[i]);
                                if (wishes[j] > 0)
                                        assert_true(limits.agents <= wishes[j]);
                        }
}

/* A wish that can be met is met to the letter. */
TEST(test_wishes) {
        struct limits limits = limits_share(10000, 500, 20);

        assert_int_equal(limits.connections, 500);
        assert_int_equal(limits.agents, 20);
}

/* Without a wish, most of the table is for connections. */
TEST(test_defaults) {
        struct limits limits = limits_share(524288, 0, 0);

        assert_true(limits.connections > 500000);
        assert_true(limits.agents >= 1000);
        limits = limits_share(1024, 0, 0);
        assert_true(limits.connections > 280);
        assert_true(limits.agents >= 100);
        /* One wish does not take from the other. */
        assert_int_equal(limits_share(1024, 10, 0).agents, limits.agents);
}

/* Where there is next to nothing, there is still one of each. */
TEST(test_tiny) {
        for (uint64_t n = 0; n < 64; n++) {
                struct limits limits = limits_share(n, 0, 0);

                assert_true(limits.connections >= 1 && limits.agents >= 1 && limits.leaving >= 1);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_fits),
                cmocka_unit_test(test_wishes),
                cmocka_unit_test(test_defaults),
                cmocka_unit_test(test_tiny),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
