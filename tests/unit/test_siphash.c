/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The keyed hash against what its authors published. */

#include "unit.h"

#include "base/siphash.h"

/* Key 00 01 02 ... 0f, message 00 01 02 ... */
static const struct siphash_key key = { 0x0706050403020100, 0x0f0e0d0c0b0a0908 };

static struct slice message(size_t size) {
        static char bytes[64];

        for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (char) i;
        return (struct slice){ bytes, size };
}

/* vectors.h of the reference implementation of SipHash-2-4, and the example of the paper's appendix. */
TEST(test_published_2_4) {
        static const uint64_t expected[] = {
                0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a, 0x85676696d7fb7e2d,
                0xcf2794e0277187b7, 0x18765564cd99a68d, 0xcbc9466e58fee3ce, 0xab0200f58b01d137,
                0x93f5f5799a932462, /* two words */
        };

        for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
                assert_int_equal(siphash_rounds(2, 4, &key, message(i)), expected[i]);
        assert_int_equal(siphash_rounds(2, 4, &key, message(15)), 0xa129ca6149be45e5);
}

/* The lower halves of SipHash-1-3, as in the Linux kernel's self-test of hsiphash. */
TEST(test_published_1_3) {
        static const uint32_t expected[] = { 0x050fc4dc, 0x7d57ca93, 0x4dc7d44d, 0xe7ddf7fb, 0x88d38328,
                0x49533b67, 0xc59f22a7, 0x9bb11140 };

        for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
                assert_int_equal((uint32_t) siphash13(&key, message(i)), expected[i]);
}

TEST(test_empty_without_data) {
        assert_int_equal(siphash13(&key, (struct slice){}), siphash13(&key, message(0)));
}

/* Where the bytes lie in memory does not matter. */
TEST(test_alignment) {
        uint64_t expected = siphash13(&key, message(23));
        char space[40];

        for (size_t i = 0; i < 16; i++) {
                memcpy(space + i, message(23).data, 23);
                assert_int_equal(siphash13(&key, (struct slice){ space + i, 23 }), expected);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_published_2_4),
                cmocka_unit_test(test_published_1_3),
                cmocka_unit_test(test_empty_without_data),
                cmocka_unit_test(test_alignment),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
