/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attribute lists and the buffers they live in. */

#include <errno.h>

#include "unit.h"

#include "base/cleanup.h"
#include "wire/list.h"

/* A list as a string literal, whose own NUL closes it. */
#define LIST(literal)                    \
        (struct slice) {                 \
                literal, sizeof(literal) \
        }

static void check_attribute(const struct wire_list *list, size_t i, const char *name, const char *value) {
        assert_string_equal(wire_list_name(list, i).data, name);
        assert_int_equal(wire_list_name(list, i).size, strlen(name));
        assert_string_equal(wire_list_value(list, i).data, value);
        assert_int_equal(wire_list_value(list, i).size, strlen(value));
}

/* The stream in pieces of every size: the parser says "complete" at the byte that completes the list, and the list is the
 * same. What comes behind it stays out. */
static void check_pieces(struct slice stream, size_t length, size_t n_attributes) {
        struct wire_parser whole = {}, parser = {};
        struct wire_list list;

        assert_int_equal(wire_parser_feed(&whole, stream.data, stream.size), length);

        for (size_t piece = 1; piece <= stream.size; piece++) {
                size_t n = 0, got = 0;

                wire_parser_reset(&parser);
                while (n < stream.size) {
                        n = MIN(n + piece, stream.size);
                        got = wire_parser_feed(&parser, stream.data, n);
                        assert_int_equal(got, length > 0 && n >= length ? length : 0);
                }
                if (got == 0)
                        continue;
                list = wire_parser_list(&parser, stream.data);
                assert_int_equal(list.n_attributes, n_attributes);
                assert_memory_equal(parser.ends, whole.ends,
                        MIN(n_attributes, (size_t) WIRE_ATTRIBUTES_MAX) * 2 * sizeof(whole.ends[0]));
        }

        /* All cuts into two. */
        for (size_t cut = 0; cut <= stream.size; cut++) {
                wire_parser_reset(&parser);
                (void) wire_parser_feed(&parser, stream.data, cut);
                assert_int_equal(wire_parser_feed(&parser, stream.data, stream.size), length);
        }
}

TEST(test_lists) {
        static const char request[] = "request\0save_endp\0ttl\0002\0label\0l\0property\0\0";
        struct wire_parser parser = {};
        struct wire_list list;

        check_pieces(LIST(request), sizeof(request), 4);
        assert_int_equal(wire_parser_feed(&parser, request, sizeof(request)), sizeof(request));
        list = wire_parser_list(&parser, request);
        check_attribute(&list, 0, "request", "save_endp");
        check_attribute(&list, 1, "ttl", "2");
        check_attribute(&list, 2, "label", "l");
        check_attribute(&list, 3, "property", "");
}

TEST(test_odd_lists) {
        check_pieces(LIST(""), 1, 0);
        check_pieces(LIST("\0\0"), 1, 0);
        check_pieces(LIST("dummy\0\0"), 8, 1);
        check_pieces(LIST("dummy\0\0\0dummy\0\0"), 8, 1);
        /* Only in the place of a name does an empty string close the list. */
        check_pieces(LIST("a\0\0b\0\0"), 7, 2);
        check_pieces((struct slice){ "a\0\0", 3 }, 0, 0);
        check_pieces((struct slice){ "no end in sight", 15 }, 0, 0);
        check_pieces((struct slice){ "a\0b", 3 }, 0, 0);
}

/* More attributes than are kept are still counted and read past. */
TEST(test_many_attributes) {
        char stream[400];
        struct wire_buffer buffer = WIRE_BUFFER_INIT(sizeof(stream));
        struct wire_parser parser = {};
        struct wire_list list;

        for (unsigned i = 0; i < 40; i++)
                assert_int_equal(wire_put_number(&buffer, SLICE("n"), i), 0);
        assert_int_equal(wire_put_end(&buffer), 0);
        check_pieces((struct slice){ wire_buffer_head(&buffer), wire_buffer_fill(&buffer) },
                wire_buffer_fill(&buffer), 40);
        (void) wire_parser_feed(&parser, wire_buffer_head(&buffer), wire_buffer_fill(&buffer));
        list = wire_parser_list(&parser, wire_buffer_head(&buffer));
        assert_int_equal(list.n_attributes, 40);
        check_attribute(&list, WIRE_ATTRIBUTES_MAX - 1, "n", "7");
        wire_buffer_release(&buffer);
}

TEST(test_written) {
        struct wire_buffer buffer = WIRE_BUFFER_INIT(1000);
        static const char expected[] =
                "status\0000\0property\0\0property\0text\0max\00018446744073709551615\0";

        assert_int_equal(wire_put_number(&buffer, SLICE("status"), 0), 0);
        assert_int_equal(wire_put(&buffer, SLICE("property"), (struct slice){}), 0);
        assert_int_equal(wire_put(&buffer, SLICE("property"), SLICE("text")), 0);
        assert_int_equal(wire_put_number(&buffer, SLICE("max"), UINT64_MAX), 0);
        assert_int_equal(wire_put_end(&buffer), 0);
        assert_int_equal(wire_buffer_fill(&buffer), sizeof(expected));
        assert_memory_equal(wire_buffer_head(&buffer), expected, sizeof(expected));
        wire_buffer_release(&buffer);
}

/* What does not fit is not written in part. */
TEST(test_written_to_the_limit) {
        struct wire_buffer buffer = WIRE_BUFFER_INIT(10);

        assert_int_equal(wire_put(&buffer, SLICE("abc"), SLICE("defgh")), 0);
        assert_int_equal(wire_buffer_fill(&buffer), 10);
        assert_int_equal(wire_put_end(&buffer), -EMSGSIZE);
        assert_int_equal(wire_put(&buffer, SLICE(""), SLICE("")), -EMSGSIZE);
        assert_int_equal(wire_buffer_fill(&buffer), 10);
        assert_memory_equal(wire_buffer_head(&buffer), "abc\0defgh", 10);
        wire_buffer_consumed(&buffer, 1);
        assert_int_equal(wire_put_end(&buffer), 0);
        assert_memory_equal(wire_buffer_head(&buffer), "bc\0defgh\0", 10);
        wire_buffer_release(&buffer);
}

TEST(test_numbers) {
        static const struct {
                const char *text;
                int result;
                uint64_t value;
        } cases[] = {
                { "0", 0, 0 },
                { "7", 0, 7 },
                { "0010", 0, 10 },
                { "18446744073709551615", 0, UINT64_MAX },
                { "18446744073709551614", 0, UINT64_MAX - 1 },
                { "18446744073709551616", 0, UINT64_MAX },
                { "18446744073709551620", 0, UINT64_MAX },
                { "99999999999999999999999999999999", 0, UINT64_MAX },
                { "0000000000000000000000000000000001", 0, 1 },
                { "", -EINVAL, 0 },
                { "-1", -EINVAL, 0 },
                { "+1", -EINVAL, 0 },
                { " 1", -EINVAL, 0 },
                { "1 ", -EINVAL, 0 },
                { "1s", -EINVAL, 0 },
                { "0x10", -EINVAL, 0 },
                { "99999999999999999999999999999999x", -EINVAL, 0 },
                { "\xb2", -EINVAL, 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint64_t value = 0;

                assert_int_equal(wire_number(slice_of(cases[i].text), &value), cases[i].result);
                assert_int_equal(value, cases[i].value);
        }
}

/* Every bounded history of a buffer next to a plain array. */
TEST(test_buffer_history) {
        static const size_t limits[] = { 1, 10, 1024, 1025, 5000, 100000 };

        for (size_t l = 0; l < ELEMENTSOF(limits); l++) {
                struct wire_buffer buffer = WIRE_BUFFER_INIT(limits[l]);
                static char expected[100000];
                uint64_t seed = 99, next = 0;
                size_t fill = 0;

                for (unsigned step = 0; step < 2000; step++) {
                        size_t n = next_random(&seed) % (limits[l] + 2);
                        int r = wire_buffer_reserve(&buffer, n);

                        assert_int_equal(r, fill + n <= limits[l] ? 0 : -EMSGSIZE);
                        if (r == 0) {
                                assert_true(wire_buffer_room(&buffer) >= n);
                                for (size_t i = 0; i < n; i++)
                                        expected[fill + i] = wire_buffer_tail(&buffer)[i] = (char) next++;
                                wire_buffer_produced(&buffer, n);
                                fill += n;
                        }
                        assert_true(buffer.size <= limits[l]);
                        assert_int_equal(wire_buffer_fill(&buffer), fill);
                        if (fill > 0)
                                assert_memory_equal(wire_buffer_head(&buffer), expected, fill);

                        n = next_random(&seed) % (fill + 1);
                        wire_buffer_consumed(&buffer, n);
                        fill -= n;
                        memmove(expected, expected + n, fill);
                        if (step % 500 == 0) {
                                wire_buffer_release(&buffer);
                                fill = 0;
                        }
                }
                wire_buffer_release(&buffer);
        }
}

TEST(test_buffer_of_any_size) {
        struct wire_buffer buffer = WIRE_BUFFER_INIT(SIZE_MAX);

        assert_int_equal(wire_buffer_reserve(&buffer, 3), 0);
        wire_buffer_produced(&buffer, 3);
        assert_int_equal(wire_buffer_reserve(&buffer, SIZE_MAX), -EMSGSIZE);
        assert_int_equal(wire_buffer_reserve(&buffer, SIZE_MAX - 2), -EMSGSIZE);
        assert_int_equal(wire_buffer_fill(&buffer), 3);
        wire_buffer_clear(&buffer);
        assert_int_equal(wire_buffer_fill(&buffer), 0);
        wire_buffer_release(&buffer);
        assert_int_equal(buffer.limit, SIZE_MAX);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lists),
                cmocka_unit_test(test_odd_lists),
                cmocka_unit_test(test_many_attributes),
                cmocka_unit_test(test_written),
                cmocka_unit_test(test_written_to_the_limit),
                cmocka_unit_test(test_numbers),
                cmocka_unit_test(test_buffer_history),
                cmocka_unit_test(test_buffer_of_any_size),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
