/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "settings/expand.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"

/* State that all levels of an expansion share. */
struct expansion {
        settings_lookup_fn lookup;
        void *userdata;
        char *out;
        size_t size;
        unsigned n_steps;
        char *problem;
};

/* A name whose value is being expanded, and the name that led to it. */
struct link {
        const struct link *from;
        struct slice name;
};

static int expand_text(struct expansion *x, struct slice text, const struct link *link, unsigned depth);

static int fail(struct expansion *x, const char *format, ...) _printf_(2, 3);

static int fail(struct expansion *x, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(x->problem, SETTINGS_PROBLEM_MAX, format, arguments);
        va_end(arguments);
        return -EINVAL;
}

static int append(struct expansion *x, struct slice text) {
        if (text.size > SETTINGS_VALUE_MAX - x->size)
                return fail(x, "it expands to more than %u bytes", SETTINGS_VALUE_MAX);

        memcpy(x->out + x->size, text.data, text.size);
        x->size += text.size;
        return 0;
}

static bool is_blank(char c) {
        return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_digit(char c) {
        return c >= '0' && c <= '9';
}

static bool is_name(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_';
}

/* Take SIZE bytes off the front of a text. */
static struct slice take(struct slice *text, size_t size) {
        struct slice taken = { text->data, size };

        text->data += size;
        text->size -= size;
        return taken;
}

static struct slice take_while(struct slice *text, bool (*wanted)(char c)) {
        size_t n = 0;

        while (n < text->size && wanted(text->data[n]))
                n++;
        return take(text, n);
}

static bool starts_with(struct slice text, char c) {
        return text.size > 0 && *text.data == c;
}

/* Take a pair of brackets, and return the text between them. Only brackets of the same kind are counted, as in Postfix. */
static int take_brackets(
        struct expansion *x, struct slice *text, char opening, char closing, struct slice *ret_inside) {
        size_t level = 0;

        for (size_t i = 0; i < text->size; i++) {
                if (text->data[i] == opening)
                        level++;
                else if (text->data[i] == closing && --level == 0) {
                        *ret_inside = take(text, i + 1);
                        ret_inside->data++;
                        ret_inside->size -= 2;
                        return 0;
                }
        }

        return fail(x, "a %c has no %c", opening, closing);
}

/* Take {text} and the blanks around it. Without a brace, take everything that is left: the older form. */
static int take_operand(struct expansion *x, struct slice *text, struct slice *ret) {
        struct slice ahead = *text;
        int r;

        (void) take_while(&ahead, is_blank);
        if (!starts_with(ahead, '{')) {
                *ret = take(text, text->size);
                return 0;
        }

        *text = ahead;
        r = take_brackets(x, text, '{', '}', ret);
        if (r < 0)
                return r;

        (void) take_while(text, is_blank);
        return 0;
}

static bool is_number(struct slice text) {
        (void) take_while(&text, is_digit);
        return text.size == 0;
}

static int compare(struct slice left, struct slice right) {
        int r;

        if (left.size > 0 && right.size > 0 && is_number(left) && is_number(right)) {
                while (starts_with(left, '0'))
                        (void) take(&left, 1);
                while (starts_with(right, '0'))
                        (void) take(&right, 1);
                if (left.size != right.size)
                        return left.size < right.size ? -1 : 1;
        }

        r = memcmp(left.data, right.data, left.size < right.size ? left.size : right.size);
        return r != 0 ? r : (left.size > right.size) - (left.size < right.size);
}

/* Take an operator; returns NULL if there is none. Longer ones come first, because <= begins with <. */
static const char *take_operator(struct slice *text) {
        static const char *const operators[] = { "==", "!=", "<=", ">=", "<", ">" };

        for (size_t i = 0; i < sizeof(operators) / sizeof(*operators); i++) {
                size_t length = strlen(operators[i]);

                if (text->size >= length && memcmp(text->data, operators[i], length) == 0) {
                        (void) take(text, length);
                        return operators[i];
                }
        }

        return NULL;
}

/* Take {text} operator {text}, and compare. */
static int take_comparison(
        struct expansion *x, struct slice *text, const struct link *link, unsigned depth, bool *ret) {
        size_t left_at = x->size, right_at;
        struct slice left, right;
        const char *operator;
        int r;

        r = take_operand(x, text, &left);
        if (r < 0)
                return r;
        operator= take_operator(text);
        if (!operator)
                return fail(x, "expected ==, !=, <, <=, >= or > between {} and {}");
        (void) take_while(text, is_blank);
        if (!starts_with(*text, '{'))
                return fail(x, "expected {} after %s", operator);
        r = take_operand(x, text, &right);
        if (r < 0)
                return r;

        /* Expand both sides at the end of the output, and remove them again: so they need no buffers. */
        r = expand_text(x, left, link, depth + 1);
        if (r < 0)
                return r;
        right_at = x->size;
        r = expand_text(x, right, link, depth + 1);
        if (r < 0)
                return r;
        left = (struct slice){ x->out + left_at, right_at - left_at };
        right = (struct slice){ x->out + right_at, x->size - right_at };
        x->size = left_at;

        r = compare(left, right);
        switch (operator[0]) {
        case '=':
                *ret = r == 0;
                break;
        case '!':
                *ret = r != 0;
                break;
        case '<':
                *ret = r < 0 || (r == 0 && operator[1] == '=');
                break;
        default:
                *ret = r > 0 || (r == 0 && operator[1] == '=');
        }

        return 0;
}

/* Expand the value of a name. */
static int expand_name(
        struct expansion *x, struct slice name, const char *value, const struct link *link, unsigned depth) {
        const struct link here = { link, name };

        for (const struct link *l = link; l; l = l->from)
                if (slice_equal(l->name, name))
                        return fail(x, "it is circular, the value of %.*s needs the value of %.*s",
                                (int) name.size, name.data, (int) name.size, name.data);

        return expand_text(x, slice_of(value), &here, depth + 1);
}

/* Expand the text between ${ and }, or the name after $. */
static int expand_reference(
        struct expansion *x, struct slice text, const struct link *link, unsigned depth) {
        struct slice name = {}, chosen = {}, other = {};
        const char *value = NULL;
        bool named, set = false;
        char operator;
        int r;

        if (++x->n_steps > SETTINGS_EXPAND_STEPS)
                return fail(x, "it takes more than %u steps to expand", SETTINGS_EXPAND_STEPS);

        (void) take_while(&text, is_blank);
        named = !starts_with(text, '{');
        if (named) {
                name = take_while(&text, is_name);
                (void) take_while(&text, is_blank);
        } else {
                r = take_comparison(x, &text, link, depth, &set);
                if (r < 0)
                        return r;
        }

        if (text.size > 0 && *text.data != '?' && *text.data != ':')
                return fail(x,
                        "expected a name after $, and ?, : or nothing after the name; write $$ for a dollar "
                        "sign");

        if (named) {
                value = x->lookup(x->userdata, name, text.size > 0);
                set = value && *value;
        }

        if (text.size == 0) {
                if (!set)
                        return 0;
                return named ? expand_name(x, name, value, link, depth) : append(x, slice_of("true"));
        }

        operator= * take(&text, 1).data;
        if (operator== '?') {
                r = take_operand(x, &text, &chosen);
                if (r < 0)
                        return r;
                if (text.size > 0 && *take(&text, 1).data != ':')
                        return fail(x, "expected :{} or nothing after ?{}");
        }
        r = take_operand(x, &text, &other);
        if (r < 0)
                return r;
        if (text.size > 0)
                return fail(x, "expected nothing after :{}");

        return expand_text(x, set ? chosen : other, link, depth + 1);
}

static int expand_text(struct expansion *x, struct slice text, const struct link *link, unsigned depth) {
        if (depth > SETTINGS_EXPAND_DEPTH)
                return fail(x, "it is nested more than %u levels deep", SETTINGS_EXPAND_DEPTH);

        while (text.size > 0) {
                const char *dollar = memchr(text.data, '$', text.size);
                struct slice reference;
                int r;

                r = append(x, take(&text, dollar ? (size_t) (dollar - text.data) : text.size));
                if (r < 0 || !dollar)
                        return r;

                (void) take(&text, 1);
                if (starts_with(text, '$')) {
                        r = append(x, take(&text, 1));
                        if (r < 0)
                                return r;
                        continue;
                }

                r = 0;
                if (starts_with(text, '{'))
                        r = take_brackets(x, &text, '{', '}', &reference);
                else if (starts_with(text, '('))
                        r = take_brackets(x, &text, '(', ')', &reference);
                else
                        reference = take_while(&text, is_name);
                if (r < 0)
                        return r;
                if (reference.size == 0)
                        return fail(x, "expected a name after $; write $$ for a dollar sign");

                r = expand_reference(x, reference, link, depth);
                if (r < 0)
                        return r;
        }

        return 0;
}

int settings_expand(const char *name, const char *value, settings_lookup_fn lookup, void *userdata,
        char *out, char *problem) {
        const struct link link = { NULL, slice_of(name) };
        struct expansion x = { lookup, userdata, out, 0, 0, problem };
        int r;

        r = expand_text(&x, slice_of(value), &link, 0);
        if (r < 0)
                return r;

        out[x.size] = '\0';
        return 0;
}
