/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which host of a fleet a destination belongs to: always the same one, and as few as possible move. */

#include "unit.h"

#include "scachectl/rendezvous.h"

#define DESTINATIONS 3000
#define HOSTS_MAX    8

static const char *destination(unsigned number) {
        static char name[32];

        (void) snprintf(name, sizeof(name), "d%u.example", number);
        return name;
}

static size_t owner(const struct rendezvous_host *hosts, size_t n, unsigned number) {
        return rendezvous_choose(hosts, n, destination(number));
}

static void count(const struct rendezvous_host *hosts, size_t n, unsigned ret[HOSTS_MAX]) {
        memset(ret, 0, HOSTS_MAX * sizeof(*ret));
        for (unsigned i = 0; i < DESTINATIONS; i++)
                ret[owner(hosts, n, i)]++;
}

/* What one release says, all later ones must say: hosts are not upgraded at the same time. */
TEST(test_stable) {
        static const struct rendezvous_host hosts[] = { { "mx1.example", 1 }, { "mx2.example", 1 },
                { "mx3.example", 2 } };
        static const struct {
                const char *destination;
                size_t owner;
        } expected[] = {
                { "example.org", 2 },
                { "example.net", 1 },
                { "outlook.example", 2 },
                { "a.example", 0 },
                { "b.example", 0 },
                { "c.example", 0 },
                { "d.example", 2 },
                { "e.example", 2 },
        };

        for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
                assert_int_equal(rendezvous_choose(hosts, 3, expected[i].destination), expected[i].owner);
}

/* More than three standard deviations to each side; the numbers are the same in each run. */
TEST(test_balanced) {
        static const struct rendezvous_host hosts[] = { { "a", 1 }, { "b", 1 }, { "c", 1 }, { "d", 1 } };
        unsigned counts[HOSTS_MAX];

        count(hosts, 4, counts);
        for (size_t i = 0; i < 4; i++)
                assert_in_range(counts[i], DESTINATIONS * 22 / 100, DESTINATIONS * 28 / 100);
}

TEST(test_weights) {
        static const struct rendezvous_host hosts[] = { { "a", 10 }, { "b", 30 }, { "c", 60 }, { "d", 0 } };
        unsigned counts[HOSTS_MAX];

        count(hosts, 4, counts);
        assert_in_range(counts[0], DESTINATIONS * 7 / 100, DESTINATIONS * 13 / 100);
        assert_in_range(counts[1], DESTINATIONS * 26 / 100, DESTINATIONS * 34 / 100);
        assert_in_range(counts[2], DESTINATIONS * 56 / 100, DESTINATIONS * 64 / 100);
        assert_int_equal(counts[3], 0);
}

TEST(test_order_does_not_matter) {
        static const struct rendezvous_host one[] = { { "a", 1 }, { "b", 2 }, { "c", 3 } };
        static const struct rendezvous_host other[] = { { "c", 3 }, { "a", 1 }, { "b", 2 } };

        for (unsigned i = 0; i < DESTINATIONS; i++)
                assert_string_equal(one[owner(one, 3, i)].name, other[owner(other, 3, i)].name);
}

/* Returns how many destinations move from BEFORE to AFTER. All of them must move to or from the host at CHANGED. */
static unsigned moved(const struct rendezvous_host *before, size_t n_before,
        const struct rendezvous_host *after, size_t n_after, const char *changed) {
        unsigned n = 0;

        for (unsigned i = 0; i < DESTINATIONS; i++) {
                const char *from = before[owner(before, n_before, i)].name;
                const char *to = after[owner(after, n_after, i)].name;

                if (strcmp(from, to) == 0)
                        continue;
                assert_true(strcmp(from, changed) == 0 || strcmp(to, changed) == 0);
                n++;
        }
        return n;
}

TEST(test_third_host) {
        static const struct rendezvous_host hosts[] = { { "a", 1 }, { "b", 1 }, { "c", 1 } };
        unsigned n = moved(hosts, 2, hosts, 3, "c");

        assert_in_range(n, DESTINATIONS * 27 / 100, DESTINATIONS * 40 / 100);
        assert_int_equal(moved(hosts, 3, hosts, 2, "c"), n);
}

TEST(test_weight_of_one_host) {
        static const struct rendezvous_host before[] = { { "a", 1 }, { "b", 1 }, { "c", 1 } };
        static const struct rendezvous_host more[] = { { "a", 1 }, { "b", 2 }, { "c", 1 } };
        static const struct rendezvous_host none[] = { { "a", 1 }, { "b", 0 }, { "c", 1 } };

        /* From a third to a half, and from a third to nothing. */
        assert_in_range(moved(before, 3, more, 3, "b"), DESTINATIONS * 12 / 100, DESTINATIONS * 22 / 100);
        assert_in_range(moved(before, 3, none, 3, "b"), DESTINATIONS * 27 / 100, DESTINATIONS * 40 / 100);
}

TEST(test_longest_names) {
        char name[RENDEZVOUS_NAME_MAX + 1], other[RENDEZVOUS_NAME_MAX + 1];
        struct rendezvous_host hosts[] = { { name, RENDEZVOUS_WEIGHT_MAX },
                { other, RENDEZVOUS_WEIGHT_MAX } };

        memset(name, 'a', sizeof(name) - 1);
        name[sizeof(name) - 1] = 0;
        memcpy(other, name, sizeof(other));
        other[sizeof(other) - 2] = 'b';

        /* If the end of a name, or of a lot, were left out, all would go to the same host. */
        for (unsigned i = 0, first = 0;; i++) {
                assert_true(i < 64);
                memcpy(name, destination(i), strlen(destination(i)));
                if (rendezvous_choose(hosts, 2, other) == 0)
                        first++;
                if (first > 0 && first < i)
                        break;
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_stable),
                cmocka_unit_test(test_balanced),
                cmocka_unit_test(test_weights),
                cmocka_unit_test(test_order_does_not_matter),
                cmocka_unit_test(test_third_host),
                cmocka_unit_test(test_weight_of_one_host),
                cmocka_unit_test(test_longest_names),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
