/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parser of attribute lists: a stream gives the same lists however it is cut into pieces, and writing them gives
 * the stream again. */

#include <string.h>

#include "base/cleanup.h"
#include "fuzz.h"
#include "wire/list.h"

/* The list at the start of the stream as a reader would spell it out: 0 if it is not complete. */
static size_t spell_out(const char *data, size_t size, size_t *ret_n_attributes) {
        size_t at = 0;

        *ret_n_attributes = 0;
        for (;;) {
                size_t name = strnlen(data + at, size - at), value;

                if (at + name == size)
                        return 0;
                if (name == 0)
                        return at + 1;
                at += name + 1;

                value = strnlen(data + at, size - at);
                if (at + value == size)
                        return 0;
                at += value + 1;
                (*ret_n_attributes)++;
        }
}

static void check_written(const struct wire_list *list, const char *data, size_t length) {
        struct wire_buffer buffer = WIRE_BUFFER_INIT(length);

        for (size_t i = 0; i < list->n_attributes; i++)
                CHECK(wire_put(&buffer, wire_list_name(list, i), wire_list_value(list, i)) == 0);
        CHECK(wire_put_end(&buffer) == 0);
        CHECK(wire_buffer_fill(&buffer) == length);
        CHECK(memcmp(wire_buffer_head(&buffer), data, length) == 0);
        wire_buffer_release(&buffer);
}

/* What a value means as a number must not depend on what comes after it. */
static void check_number(struct slice text) {
        uint64_t number, expected;
        char copy[32], *end;

        if (text.size >= sizeof(copy))
                return;
        memcpy(copy, text.data, text.size);
        copy[text.size] = 0;

        if (wire_number(text, &number) < 0) {
                CHECK(text.size == 0 || strspn(copy, "0123456789") < text.size);
                return;
        }
        expected = strtoull(copy, &end, 10);
        CHECK(*end == 0 && number == expected);
}

static size_t check_list(const char *data, size_t size) {
        struct wire_parser whole = {}, pieces = {};
        size_t length, n_attributes, n;
        struct wire_list list;

        length = wire_parser_feed(&whole, data, size);
        CHECK(length == spell_out(data, size, &n_attributes));
        CHECK(wire_parser_feed(&whole, data, size) == length);

        /* In two pieces, cut anywhere near the start or the end; what comes after a list changes nothing. */
        for (size_t cut = 0; cut <= (length > 0 ? length : size); cut++) {
                if (cut > 300 && cut + 300 < size)
                        continue;
                wire_parser_reset(&pieces);
                n = wire_parser_feed(&pieces, data, cut);
                CHECK(n == (cut >= length ? length : 0));
                CHECK(wire_parser_feed(&pieces, data, size) == length);
                CHECK(pieces.n_strings == whole.n_strings);
                CHECK(memcmp(pieces.ends, whole.ends,
                              MIN(whole.n_strings, ELEMENTSOF(whole.ends)) * sizeof(whole.ends[0])) == 0);
        }

        /* Byte by byte. */
        wire_parser_reset(&pieces);
        for (size_t i = 0; i <= (length > 0 ? length : size); i++)
                CHECK(wire_parser_feed(&pieces, data, i) == (length > 0 && i >= length ? length : 0));

        if (length == 0)
                return 0;

        list = wire_parser_list(&pieces, data);
        CHECK(list.n_attributes == n_attributes);
        for (size_t i = 0; i < MIN(n_attributes, (size_t) WIRE_ATTRIBUTES_MAX); i++) {
                struct slice name = wire_list_name(&list, i), value = wire_list_value(&list, i);

                CHECK(name.data[name.size] == 0);
                CHECK(value.data[value.size] == 0);
                check_number(value);
        }
        if (n_attributes <= WIRE_ATTRIBUTES_MAX)
                check_written(&list, data, length);
        return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *at = (const char *) data, *end = at + size;
        size_t n;

        do {
                n = check_list(at, (size_t) (end - at));
                at += n;
        } while (n > 0 && at < end);

        return 0;
}
