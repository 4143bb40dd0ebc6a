/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opaque bytes for people's eyes. */

#include "unit.h"

#include "base/printable.h"

static void check(struct slice bytes, const char *expected) {
        assert_string_equal(printable(bytes).text, expected);
}

TEST(test_plain) {
        check(SLICE(""), "");
        check((struct slice){}, "");
        check(SLICE("smtp:example.org:25 ~!\"'"), "smtp:example.org:25 ~!\"'");
}

TEST(test_escapes) {
        check(SLICE("\0\n\x1b[31m\x7f\x80\xff"), "\\x00\\x0a\\x1b[31m\\x7f\\x80\\xff");
        check(SLICE("back\\slash"), "back\\\\slash");
        /* Two different byte strings never look the same. */
        check(SLICE("\\x0a"), "\\\\x0a");
}

TEST(test_too_long) {
        char bytes[1000];

        for (int c = 0; c < 256; c++)
                for (size_t size = 0; size < 300; size++) {
                        struct printable printed;
                        size_t width = c == '\\' ? 2 : c >= 0x20 && c < 0x7f ? 1 : 4;

                        memset(bytes, c, size);
                        printed = printable((struct slice){ bytes, size });
                        assert_true(strnlen(printed.text, PRINTABLE_MAX) < PRINTABLE_MAX);
                        if (size * width <= PRINTABLE_MAX - 8)
                                assert_int_equal(strlen(printed.text), size * width);
                        else if (size * width >= PRINTABLE_MAX)
                                assert_string_equal(printed.text + strlen(printed.text) - 3, "...");
                }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_plain),
                cmocka_unit_test(test_escapes),
                cmocka_unit_test(test_too_long),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
