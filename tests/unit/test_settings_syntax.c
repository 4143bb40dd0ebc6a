/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settings: lines and $name, as Postfix reads them */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "settings/expand.h"
#include "settings/file.h"
#include "settings/settings.h"

#define MESSAGE_SIZE 2048

/* Keep the first thing that is said. */
static void hear(void *userdata, int priority, const char *message) {
        char *first = userdata;

        if (*first == '\0')
                (void) snprintf(
                        first, MESSAGE_SIZE, "%s: %s", priority == LOG_ERR ? "error" : "warning", message);
}

/* Read a text as a file of the given name. connection_cache_farewell is the parameter that takes any text. */
static int load(const char *path, const char *text, size_t size, char *message, struct settings **ret) {
        struct settings_text file = { path, text, size };
        struct settings_request request = { .process_id = 4711 };
        bool own = strcmp(path, "scached.conf") == 0;

        *message = '\0';
        return settings_load_texts(&request, own ? NULL : &file, own ? &file : NULL, hear, message, ret);
}

static void assert_farewell(const char *text, size_t size, const char *expected, const char *source) {
        _cleanup_(settings_freep) struct settings *settings = NULL;
        char message[MESSAGE_SIZE];

        if (load("main.cf", text, size, message, &settings) < 0)
                fail_msg("%s\n%s", text, message);
        if (strcmp(settings->farewell, expected) != 0)
                fail_msg("%s\ncame out as \"%s\", not \"%s\"", text, settings->farewell, expected);
        for (size_t i = 0; source && i < settings->n_rows; i++)
                if (strcmp(settings->rows[i].name, "connection_cache_farewell") == 0)
                        assert_string_equal(settings->rows[i].source, source);
}

#define FAREWELL "connection_cache_farewell"

static void test_lines(void **state) {
        static const struct {
                const char *text;
                const char *farewell;
                const char *source;
        } cases[] = {
                { "", "QUIT\r\n", "default" },
                { "\n\n \n#\n  # " FAREWELL " = no\n", "QUIT\r\n", "default" },
                { FAREWELL "=a", "a", "main.cf:1" },
                { FAREWELL "=a\n", "a", "main.cf:1" },
                { FAREWELL " = a \t\r\n", "a", "main.cf:1" },
                { FAREWELL "\t=\v\fa b\n", "a b", "main.cf:1" },
                { FAREWELL " =", "", "main.cf:1" },
                { FAREWELL " =\n", "", "main.cf:1" },
                { FAREWELL " = a = b\n", "a = b", "main.cf:1" },
                { FAREWELL " = # a\n", "# a", "main.cf:1" },
                { "#\n\n" FAREWELL " = a # b\n", "a # b", "main.cf:3" },

                /* lines that go on */
                { FAREWELL " = a\n b\n\tc\n", "a b\tc", "main.cf:1" },
                { FAREWELL " =\n  a\n", "a", "main.cf:1" },
                { FAREWELL "\n = a\n", "a", "main.cf:1" },
                { FAREWELL " = a\n# b\n c\n", "a c", "main.cf:1" },
                { FAREWELL " = a\n  # b\n c\n", "a c", "main.cf:1" },
                { FAREWELL " = a\n\n c\n", "a c", "main.cf:1" },
                { FAREWELL " = a\n \t\n\n#\n c\n\n", "a c", "main.cf:1" },
                { FAREWELL " = a\n\n\nfoo = b\n c\n", "a", "main.cf:1" },
                { FAREWELL " = a\r\n b\r\n", "a\r b", "main.cf:1" },
                { FAREWELL " = a\\\\\nfoo = b\n", "a\\", "main.cf:1" }, /* a backslash continues nothing */
                { "foo = b\n # c\n\n" FAREWELL " = a\n", "a", "main.cf:4" },
                { "foo = b\n " FAREWELL " = a\n", "QUIT\r\n", "default" },

                /* the last one wins */
                { FAREWELL " = a\n" FAREWELL " = b\n", "b", "main.cf:2" },

                /* what Postfix itself would not take is passed over */
                { "foo\n" FAREWELL " = a\n", "a", "main.cf:2" },
                { "= foo\n" FAREWELL " = a\n", "a", "main.cf:2" },
                { " foo = b\n c\n" FAREWELL " = a\n", "a", "main.cf:3" },
                { FAREWELL " x = a\n", "QUIT\r\n", "default" },
        };

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                assert_farewell(cases[i].text, strlen(cases[i].text), cases[i].farewell, cases[i].source);
}

/* A value of any length in front of the last byte: nothing behind the text is read or written. */
static void test_no_newline_at_end(void **state) {
        static const char text[] = "foo = bar\n" FAREWELL "=a\n b\n#";

        (void) state;
        for (size_t size = 0; size < sizeof(text); size++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;
                char message[MESSAGE_SIZE], *copy;

                copy = malloc(size + 1);
                assert_non_null(copy);
                memcpy(copy, text, size);
                assert_int_equal(load("main.cf", size > 0 ? copy : NULL, size, message, &settings), 0);
                free(copy);
        }
}

static void test_real_main_cf(void **state) {
        /* What Debian's package writes, with the parts that are hard to read. */
        static const char text[] =
                "# See /usr/share/postfix/main.cf.dist for a commented, more complete version\n"
                "\n"
                "smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)\n"
                "biff = no\n"
                "\n"
                "# TLS parameters\n"
                "smtpd_tls_cert_file=/etc/ssl/certs/ssl-cert-snakeoil.pem\n"
                "smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache\n"
                "smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated\n"
                "        defer_unauth_destination\n"
                "alias_maps = hash:/etc/aliases\n"
                "mydestination = $myhostname, localhost.$mydomain, , localhost\n"
                "relayhost = \n"
                "mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128\n"
                "inet_protocols = all\n"
                "smtpd_client_restrictions = ${{$compatibility_level} <level {1} ? {yes} : {no}}\n"
                "bad_reference = $ ${ $self\n"
                "self = $self\n"
                "connection_cache_ttl_limit = 4s\n"
                "connection_cache_service_name = scached\n"
                "max_idle = ${stress?10}${stress:20}s\n";
        _cleanup_(settings_freep) struct settings *settings = NULL;
        char message[MESSAGE_SIZE];

        (void) state;
        assert_int_equal(load("main.cf", text, sizeof(text) - 1, message, &settings), 0);
        assert_string_equal(message, "");
        assert_int_equal(settings->ttl_limit_us, 4000000);
        assert_int_equal(settings->max_idle_us, 20000000);
}

/* What each text after the = comes to, with these names set. */
static const char names[] = "full = text\n"
                            "empty =\n"
                            "also_empty = $empty\n"
                            "nine = 9\n"
                            "ten = 10\n"
                            "dollar = $$full\n"
                            "chain = <$link>\n"
                            "link = [${full}]\n"
                            "name_1 = n1\n"
                            "spaces =   a  b  \n"
                            "self = $self\n"
                            "ring_a = $ring_b\n"
                            "ring_b = $(ring_c)\n"
                            "ring_c = ${ring_a}\n";

static void test_expand(void **state) {
        static const struct {
                const char *value;
                const char *expected;
        } cases[] = {
                { "plain", "plain" },
                { "$full", "text" },
                { "$(full)", "text" },
                { "${full}", "text" },
                { "${ full }", "text" },
                { "$( full\t)", "text" },
                { "a$full-b", "atext-b" },
                { "$name_1", "n1" },
                { "a${full}b$(full)c", "atextbtextc" },
                { "$spaces", "a  b" },
                { "$empty", "" },
                { "$undefined", "" },
                { "a${undefined}b", "ab" },
                { "$$", "$" },
                { "$$$$full", "$$full" },
                { "$$$full", "$text" },
                { "$dollar", "$full" }, /* what is expanded is not expanded again */
                { "$chain", "<[text]>" },
                { "$process_name $process_id $service_name", "scached 4711 scached" },
                { "$config_directory", SETTINGS_CONFIG_DIRECTORY },
                { "$max_idle/$ipc_timeout", "100s/3600s" }, /* defaults count */
                { "{a}(b)?:", "{a}(b)?:" },

                /* with random text, as before Postfix 3.0 */
                { "${full?yes}", "yes" },
                { "$(full?yes)", "yes" },
                { "${full:yes}", "" },
                { "${empty?yes}", "" },
                { "${empty:yes}", "yes" },
                { "${undefined?yes}", "" },
                { "${undefined:yes}", "yes" },
                { "${full? yes }", " yes " },
                { "${full ?yes}", "yes" },
                { "${full?a:b}", "a:b" },
                { "${full??}", "?" },
                { "${full?}", "" },
                { "${full?<$full>}", "<text>" },
                { "${full?${empty:$nine}}", "9" },
                { "${also_empty?yes}", "yes" }, /* tested as it is written */

                /* with braces */
                { "${full?{yes}}", "yes" },
                { "${full ? {yes} }", "yes" },
                { "${full?{ yes }}", " yes " },
                { "${full?{yes}:{no}}", "yes" },
                { "${empty?{yes}:{no}}", "no" },
                { "${empty ? {yes} : {no}}", "no" },
                { "${empty?{yes}:no}", "no" },
                { "${empty?{yes}:}", "" },
                { "${empty:{no}}", "no" },
                { "${full?{a{b}c}}", "a{b}c" },
                { "$(full?{yes}:{no})", "yes" },

                /* comparisons */
                { "${{$full}=={text}}", "true" },
                { "${{$full}=={other}}", "" },
                { "${{$full}=={text}?{yes}:{no}}", "yes" },
                { "${{$full}!={text}?{yes}:{no}}", "no" },
                { "${{$nine}<{$ten}?{yes}:{no}}", "yes" },
                { "${{x$nine}<{x$ten}?{yes}:{no}}", "no" },
                { "${{$ten}<={010}?{yes}:{no}}", "yes" },
                { "${{$ten}>={$nine}?{yes}:{no}}", "yes" },
                { "${{$ten}>{$ten}?{yes}:{no}}", "no" },
                { "${{}<{0}?{yes}:{no}}", "yes" },
                { "${{a}<{ab}?{yes}:{no}}", "yes" },
                { "${{99999999999999999999999}>{9}?{yes}:{no}}", "yes" },
                { "${ {$full} == {text} ? {yes} : {no} }", "yes" },
                { "${{a}=={b}?yes}", "" },
                { "${{a}=={b}:no}", "no" },
                { "${{${full?{a}}}=={a}?{<$full>}:{no}}", "<text>" },

                /* what is not chosen may be anything whose braces match */
                { "${full?{yes}:{$self}}", "yes" },
                { "${full:{$}}", "" },
        };
        char text[1024];

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                (void) snprintf(text, sizeof(text), "%s" FAREWELL " = %s\n", names, cases[i].value);
                assert_farewell(text, strlen(text), cases[i].expected, NULL);
        }
}

static void test_expand_problems(void **state) {
#define NO_NAME  "expected a name after $; write $$ for a dollar sign"
#define BAD_NAME "expected a name after $, and ?, : or nothing after the name; write $$ for a dollar sign"
        static const struct {
                const char *value;
                const char *problem;
        } cases[] = {
                { "a$", NO_NAME },
                { "$-a", NO_NAME },
                { "${}", NO_NAME },
                { "$()", NO_NAME },
                { "${full", "a { has no }" },
                { "$(full}", "a ( has no )" },
                { "${full?{a}", "a { has no }" },
                { "$(full?{a)", "a { has no }" },
                { "${a-b}", BAD_NAME },
                { "${a b}", BAD_NAME },
                { "${a{b}}", BAD_NAME },
                { "${{a}=={a}b}", BAD_NAME },
                { "${full?{a}b}", "expected :{} or nothing after ?{}" },
                { "${full?{a}:{b}c}", "expected nothing after :{}" },
                { "${full:{b}c}", "expected nothing after :{}" },
                { "${{a}}", "expected ==, !=, <, <=, >= or > between {} and {}" },
                { "${{a}={a}}", "expected ==, !=, <, <=, >= or > between {} and {}" },
                { "${{a}==a}", "expected {} after ==" },
                { "${{a}==}", "expected {} after ==" },
                { "$self", "it is circular, the value of self needs the value of self" },
                { "$ring_a", "it is circular, the value of ring_a needs the value of ring_a" },
                { "${full?$ring_b}", "it is circular, the value of ring_b needs the value of ring_b" },
                { "${{$ring_c}=={}}", "it is circular, the value of ring_c needs the value of ring_c" },
                { "$connection_cache_farewell",
                        "it is circular, the value of connection_cache_farewell needs the value of "
                        "connection_cache_farewell" },
        };
        char text[1024], message[MESSAGE_SIZE], expected[MESSAGE_SIZE];

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                struct settings *settings = NULL;

                (void) snprintf(text, sizeof(text), "%s" FAREWELL " = %s\n", names, cases[i].value);
                assert_int_equal(load("main.cf", text, strlen(text), message, &settings), -EINVAL);
                assert_null(settings);
                (void) snprintf(expected, sizeof(expected), "error: main.cf:15: " FAREWELL " = %s: %s",
                        cases[i].value, cases[i].problem);
                assert_string_equal(message, expected);
        }
}

/* Names that stand for more and more of the next ones: each way has its bound. */
static void test_expand_bounds(void **state) {
        static const struct {
                unsigned n;
                const char *format; /* of the value of name I, which gets I + 1 twice */
                const char *problem;
        } cases[] = {
                { SETTINGS_EXPAND_DEPTH - 2, "$n%u", NULL },
                { SETTINGS_EXPAND_DEPTH + 1, "$n%u", "it is nested more than 100 levels deep" },
                { 14, "$n%u$n%u", "it takes more than 10000 steps to expand" },
                { 11, "x$n%u$n%u", NULL },
                { 12, "xx$n%u$n%u", "it expands to more than 4096 bytes" },
                { 40, "${{$n%u}=={$n%u}}", "it takes more than 10000 steps to expand" },
        };
        char text[16384], message[MESSAGE_SIZE];

        (void) state;
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;
                size_t n = (size_t) snprintf(
                        text, sizeof(text), "connection_cache_farewell = ${{$n0}=={}?{}:{}}\n");
                int r;

                for (unsigned j = 0; j < cases[i].n; j++) {
                        n += (size_t) snprintf(text + n, sizeof(text) - n, "n%u = ", j);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
                        n += (size_t) snprintf(text + n, sizeof(text) - n, cases[i].format, j + 1, j + 1);
#pragma GCC diagnostic pop
                        n += (size_t) snprintf(text + n, sizeof(text) - n, "\n");
                }
                n += (size_t) snprintf(text + n, sizeof(text) - n, "n%u =\n", cases[i].n);
                assert_true(n < sizeof(text));

                r = load("main.cf", text, n, message, &settings);
                if (!cases[i].problem) {
                        assert_string_equal(message, "");
                        assert_int_equal(r, 0);
                        continue;
                }
                assert_int_equal(r, -EINVAL);
                if (!strstr(message, cases[i].problem))
                        fail_msg("\"%s\" does not say \"%s\"", message, cases[i].problem);
        }
}

static void test_value_size(void **state) {
        char *text = malloc(SETTINGS_VALUE_MAX + 64), message[MESSAGE_SIZE];

        (void) state;
        assert_non_null(text);
        for (unsigned i = 0; i < 2; i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;
                int n = sprintf(text, "max_idle = %0*u", (int) (SETTINGS_VALUE_MAX + i), 5u);
                int r = load("scached.conf", text, (size_t) n, message, &settings);

                assert_int_equal(r, i == 0 ? 0 : -EINVAL);
                if (i == 1)
                        assert_non_null(strstr(message, "...: it expands to more than 4096 bytes"));
        }
        free(text);
}

/* A line that is too long is passed over in a main.cf, unless it is one of ours that then is not set. */
static void test_line_size(void **state) {
        char *text = malloc(SETTINGS_LINE_MAX + 64), message[MESSAGE_SIZE];

        (void) state;
        assert_non_null(text);
        for (unsigned i = 0; i < 4; i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;
                size_t n = SETTINGS_LINE_MAX + i % 2;
                int r;

                memset(text, 'x', n);
                memcpy(text, "foo =\n ", 7);
                text[n + 1] = '\n'; /* the newline in the middle does not count */
                text[n] = 'x';
                r = load(i < 2 ? "main.cf" : "scached.conf", text, n + 2, message, &settings);
                assert_int_equal(r, i == 3 ? -EINVAL : 0);
                if (i % 2 == 1)
                        assert_non_null(
                                strstr(message, "this line is too long, with its continuation lines"));
                else
                        assert_null(strstr(message, "too long"));
        }
        free(text);
}

static void test_nul(void **state) {
        static const char text[] = "# \0\nfoo\n = a\0b\nmax_idle = 5s\n";
        _cleanup_(settings_freep) struct settings *settings = NULL, *none = NULL;
        char message[MESSAGE_SIZE];

        (void) state;
        assert_int_equal(load("main.cf", text, sizeof(text) - 1, message, &settings), 0);
        assert_string_equal(message, "warning: main.cf:2: foo = a: expected text, this line has a NUL byte");
        assert_int_equal(settings->max_idle_us, 5000000);

        assert_int_equal(load("scached.conf", text, sizeof(text) - 1, message, &none), -EINVAL);
        assert_string_equal(
                message, "error: scached.conf:2: foo = a: expected text, this line has a NUL byte");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lines),
                cmocka_unit_test(test_no_newline_at_end),
                cmocka_unit_test(test_real_main_cf),
                cmocka_unit_test(test_expand),
                cmocka_unit_test(test_expand_problems),
                cmocka_unit_test(test_expand_bounds),
                cmocka_unit_test(test_value_size),
                cmocka_unit_test(test_line_size),
                cmocka_unit_test(test_nul),
        };

        return cmocka_run_group_tests_name("settings syntax", tests, NULL, NULL);
}
