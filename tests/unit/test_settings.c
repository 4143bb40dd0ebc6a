/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settings: values, their bounds, and where they come from */
#include "test_settings.h"

static void test_defaults(void **state) {
        _cleanup_(settings_freep) struct settings *settings = NULL;
        struct said *said = new_said(state);

        assert_int_equal(load_texts(NULL, NULL, said, &settings), 0);
        assert_string_equal(said->text, "");

        assert_int_equal(settings->ttl_limit_us, 2 * USEC_PER_SEC);
        assert_int_equal(settings->status_update_time_us, 600 * USEC_PER_SEC);
        assert_int_equal(settings->max_idle_us, 100 * USEC_PER_SEC);
        assert_int_equal(settings->ipc_timeout_us, 3600 * USEC_PER_SEC);
        assert_int_equal(settings->daemon_timeout_us, 18000 * USEC_PER_SEC);
        assert_int_equal(settings->connection_limit, 0);
        assert_int_equal(settings->memory_limit, 64 << 20);
        assert_int_equal(settings->history_limit, 65536);
        assert_int_equal(settings->agent_limit, 0);
        assert_int_equal(settings->agent_memory_limit, 8 << 20);
        assert_int_equal(settings->request_size_limit, 128 << 10);
        assert_false(settings->share_between_users);
        assert_string_equal(settings->farewell, "QUIT\r\n");
        assert_int_equal(settings->farewell_size, 6);
        assert_int_equal(settings->syslog_facility, LOG_MAIL);
        assert_string_equal(settings->syslog_name, "");
        assert_string_equal(settings->identifier, "scached");
        assert_string_equal(settings->config_directory, SETTINGS_CONFIG_DIRECTORY);

        /* A default reads as what it is: --check prints the one, the man page has the other. */
        for (size_t i = 0; i < settings->n_rows; i++) {
                const struct settings_row *row = &settings->rows[i];

                if (i > 0)
                        assert_true(strcmp(row[-1].name, row->name) < 0);
                if (row->fallback) {
                        assert_string_equal(row->value, row->fallback);
                        assert_string_equal(row->source, "default");
                }
        }
        assert_row(settings, "config_directory", SETTINGS_CONFIG_DIRECTORY, "default");
        assert_row(settings, "process_id", "4711", "read-only");
        assert_row(settings, "process_name", "scached", "read-only");
        assert_row(settings, "service_name", "scached", "read-only");
}

/* A value that is taken, and the number it stands for. */
static const struct {
        const char *line;
        size_t offset;
        uint64_t number;
} numbers[] = {
#define NUMBER(text, field, number) \
        { text, offsetof(struct settings, field), number }
        NUMBER("connection_cache_ttl_limit=1", ttl_limit_us, 1000000),
        NUMBER("connection_cache_ttl_limit = 30s", ttl_limit_us, 30000000),
        NUMBER("connection_cache_ttl_limit = 0007", ttl_limit_us, 7000000),
        NUMBER("connection_cache_status_update_time = 2m", status_update_time_us, 120000000),
        NUMBER("ipc_timeout = 3h", ipc_timeout_us, UINT64_C(10800000000)),
        NUMBER("daemon_timeout = 4d", daemon_timeout_us, UINT64_C(345600000000)),
        NUMBER("daemon_timeout = 3550w", daemon_timeout_us, UINT64_C(2147040000000000)),
        NUMBER("max_idle = 2147483647", max_idle_us, UINT64_C(2147483647000000)),
        NUMBER("max_idle = 0", max_idle_us, 0),
        NUMBER("max_idle = 0s", max_idle_us, 0),
        NUMBER("agent_limit = 0", agent_limit, 0),
        NUMBER("agent_limit = 1", agent_limit, 1),
        NUMBER("connection_cache_size_limit = 16777216", connection_limit, 16777216),
        NUMBER("connection_cache_history_limit = 0", history_limit, 0),
        NUMBER("connection_cache_history_limit = 1", history_limit, 1),
        NUMBER("connection_cache_history_limit = 16777216", history_limit, 16777216),
        NUMBER("connection_cache_memory_limit = 0", memory_limit, 0),
        NUMBER("connection_cache_memory_limit = 1048576", memory_limit, 1048576),
        NUMBER("connection_cache_memory_limit = 1024K", memory_limit, 1048576),
        NUMBER("connection_cache_memory_limit = 3M", memory_limit, 3145728),
        NUMBER("connection_cache_memory_limit = 16384G", memory_limit, UINT64_C(17592186044416)),
        NUMBER("request_size_limit = 4096", request_size_limit, 4096),
        NUMBER("request_size_limit = 16M", request_size_limit, 16777216),
        /* 0 is the most that can be kept */
        NUMBER("request_size_limit = 0", request_size_limit, 16777216),
        NUMBER("request_size_limit = 0\nconnection_cache_memory_limit = 2M", request_size_limit, 2097152),
        NUMBER("request_size_limit = 0\nconnection_cache_memory_limit = 0", request_size_limit, 16777216),
        NUMBER("request_size_limit = 2M\nconnection_cache_memory_limit = 2M", request_size_limit, 2097152),
};

static void test_numbers(void **state) {
        for (size_t i = 0; i < ELEMENTSOF(numbers); i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;
                struct said *said = new_said(state);
                uint64_t number;

                if (load_texts(numbers[i].line, NULL, said, &settings) < 0)
                        fail_msg("%s: %s", numbers[i].line, said->text);
                assert_string_equal(said->text, "");

                memcpy(&number, (char *) settings + numbers[i].offset, sizeof(number));
                if (number != numbers[i].number)
                        fail_msg("%s came out as %ju", numbers[i].line, (uintmax_t) number);
        }
}

/* Values that are not taken. What is said of them is the next test's. */
static const char *const bad_values[] = {
        "connection_cache_ttl_limit = 0",
        "connection_cache_ttl_limit =",
        "connection_cache_ttl_limit = s",
        "connection_cache_ttl_limit = -1",
        "connection_cache_ttl_limit = +1",
        "connection_cache_ttl_limit = 1.5",
        "connection_cache_ttl_limit = 1ms",
        "connection_cache_ttl_limit = 1min",
        "connection_cache_ttl_limit = 1S",
        "connection_cache_ttl_limit = 1 s",
        "connection_cache_ttl_limit = 0x10",
        "connection_cache_ttl_limit = infinity",
        "connection_cache_ttl_limit = \xd9\xa1",
        "connection_cache_ttl_limit = 2147483648",
        "connection_cache_ttl_limit = 3551w",
        "connection_cache_ttl_limit = 18446744073709551616",
        "connection_cache_ttl_limit = 18446744073709551615w",
        "connection_cache_ttl_limit = 18446744073711",
        "connection_cache_ttl_limit = 30500568904944w",
        "connection_cache_status_update_time = 0",
        "ipc_timeout = 0",
        "daemon_timeout = 0",
        "agent_limit = -1",
        "agent_limit = 1K",
        "agent_limit = 16777217",
        "connection_cache_size_limit = many",
        "connection_cache_history_limit = 16777217",
        "connection_cache_history_limit = 64K",
        "connection_cache_memory_limit = 1048575",
        "connection_cache_memory_limit = 16385G",
        "connection_cache_memory_limit = 17179869184G",
        "connection_cache_memory_limit = 64m",
        "connection_cache_memory_limit = 64MB",
        "request_size_limit = 4095",
        "request_size_limit = 16777217",
        "request_size_limit = 2M\nconnection_cache_memory_limit = 1M",
        "share_between_users = true",
        "share_between_users = 1",
        "share_between_users =",
        "syslog_facility = post",
        "syslog_facility =",
        "syslog_facility = mailx",
        "syslog_name = two words",
        "syslog_name = 12345678901234567890123456789012345678901234567890123456789012345",
        "syslog_name = bell\a",
        "syslog_name = delete\x7f",
        "connection_cache_farewell = \\",
        "connection_cache_farewell = QUIT\\q",
        "connection_cache_farewell = \\x",
        "connection_cache_farewell = \\x4",
        "connection_cache_farewell = \\xg0",
        "connection_cache_farewell = \\400",
        "connection_cache_farewell = \\777",
        "connection_cache_farewell = a\\0b",
        "connection_cache_farewell = a\\000",
        "connection_cache_farewell = a\\x00",
        "connection_cache_farewell = $",
        "connection_cache_farewell = $max_idle$connection_cache_farewell",
};

static void test_bad_values(void **state) {
        for (size_t i = 0; i < ELEMENTSOF(bad_values); i++) {
                struct settings *settings = NULL;
                struct said *said = new_said(state);

                if (load_texts(bad_values[i], NULL, said, &settings) != -EINVAL)
                        fail_msg("%s is taken", bad_values[i]);
                assert_null(settings);
                assert_int_equal(said->n_errors, 1);
                assert_int_equal(said->n_warnings, 0);
                assert_ptr_equal(strstr(said->text, "error: scached.conf:1: "), said->text);

                /* nobody has to listen */
                assert_int_equal(load_texts(bad_values[i], NULL, NULL, &settings), -EINVAL);
        }
}

static void test_words(void **state) {
        static const struct {
                const char *text;
                int facility;
        } facilities[] = {
                { "auth", LOG_AUTH },
                { "authpriv", LOG_AUTHPRIV },
                { "cron", LOG_CRON },
                { "daemon", LOG_DAEMON },
                { "ftp", LOG_FTP },
                { "kern", LOG_KERN },
                { "lpr", LOG_LPR },
                { "mail", LOG_MAIL },
                { "news", LOG_NEWS },
                { "security", LOG_AUTH },
                { "syslog", LOG_SYSLOG },
                { "user", LOG_USER },
                { "uucp", LOG_UUCP },
                { "local0", LOG_LOCAL0 },
                { "LOCAL7", LOG_LOCAL7 },
                { "Mail", LOG_MAIL },
        };
        static const struct {
                const char *text;
                bool yes;
        } answers[] = { { "yes", true }, { "no", false }, { "YES", true }, { "No", false } };
        char line[128];

        for (size_t i = 0; i < ELEMENTSOF(facilities); i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;

                (void) snprintf(line, sizeof(line), "syslog_facility = %s", facilities[i].text);
                assert_int_equal(load_texts(line, NULL, new_said(state), &settings), 0);
                assert_int_equal(settings->syslog_facility, facilities[i].facility);
        }
        for (size_t i = 0; i < ELEMENTSOF(answers); i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;

                (void) snprintf(line, sizeof(line), "share_between_users = %s", answers[i].text);
                assert_int_equal(load_texts(line, NULL, new_said(state), &settings), 0);
                assert_int_equal(settings->share_between_users, answers[i].yes);
        }
}

static void test_identifier(void **state) {
        static const struct {
                const char *line;
                const char *identifier;
        } names[] = {
                { "", "scached" },
                { "syslog_name =", "scached" },
                { "syslog_name = postfix", "postfix/scache" },
                { "syslog_name = postfix-out", "postfix-out/scache" },
                { "syslog_name = mx1", "mx1/scache" },
                { "syslog_name = postfix/$service_name", "postfix/scached/scache" },
                { "syslog_name = ${multi_instance_name?{$multi_instance_name}:{postfix}}",
                        "postfix/scache" },
                { "multi_instance_name = postfix-in\n"
                  "syslog_name = ${multi_instance_name?{$multi_instance_name}:{postfix}}",
                        "postfix-in/scache" },
                { "syslog_name = $process_name$process_id", "scached4711/scache" },
        };

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;
                struct said *said = new_said(state);

                assert_int_equal(load_texts(NULL, names[i].line, said, &settings), 0);
                assert_string_equal(said->text, "");
                assert_string_equal(settings->identifier, names[i].identifier);
        }
}

static void test_farewell(void **state) {
        static const struct {
                const char *text;
                const char *bytes;
                const char *shown; /* NULL: as written */
        } farewells[] = {
                { "", "", NULL },
                { "QUIT\\r\\n", "QUIT\r\n", NULL },
                { "quit now\\n", "quit now\n", NULL },
                { "\\a\\b\\f\\n\\r\\t\\v\\\\\\\"\\'\\?\\n", "\a\b\f\n\r\t\v\\\"'?\n",
                        "\\x07\\x08\\x0c\\n\\r\\t\\x0b\\\\\"'?\\n" },
                { "\\x41\\x0A", "A\n", "A\\n" },
                { "\\x20a\\x20\\12", " a \n", "\\x20a \\n" },
                { "\\1\\12\\1012\\377\\n", "\1\nA2\377\n", "\\x01\\nA2\\xff\\n" },
                { "\\x414\\n", "A4\n", "A4\\n" }, /* two digits, never more */
                { "$$1\\n", "$1\n", NULL },
                { "a # b\\n", "a # b\n", NULL },
                { "\xc3\xa9\\n", "\xc3\xa9\n", "\\xc3\\xa9\\n" },
        };
        char line[128];

        for (size_t i = 0; i < ELEMENTSOF(farewells); i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;
                struct said *said = new_said(state);

                (void) snprintf(line, sizeof(line), "connection_cache_farewell = %s", farewells[i].text);
                assert_int_equal(load_texts(line, NULL, said, &settings), 0);
                assert_string_equal(said->text, "");
                assert_string_equal(settings->farewell, farewells[i].bytes);
                assert_int_equal(settings->farewell_size, strlen(farewells[i].bytes));
                assert_row(settings, "connection_cache_farewell",
                        farewells[i].shown ? farewells[i].shown : farewells[i].text, "scached.conf:1");
        }
}

static void test_farewell_size(void **state) {
        char line[SETTINGS_FAREWELL_MAX + 64];

        for (unsigned i = 0; i < 2; i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;
                int n = (int) (SETTINGS_FAREWELL_MAX + i - 1);

                (void) snprintf(line, sizeof(line), "connection_cache_farewell = %0*d\\n", n, 0);
                assert_int_equal(load_texts(line, NULL, new_said(state), &settings), i == 0 ? 0 : -EINVAL);
                if (settings)
                        assert_int_equal(settings->farewell_size, SETTINGS_FAREWELL_MAX);
        }
}

static void test_precedence(void **state) {
        static const char *const options[] = { " max_idle = 9s ", "ipc_timeout=1", "ipc_timeout=2" };
        static const char main_text[] =
                "max_idle = 7s\nipc_timeout = 7s\ndaemon_timeout = 7s\nagent_limit = 7\n";
        static const char own[] = "max_idle = 8s\nipc_timeout = 8s\n\ndaemon_timeout = 8s\n";
        struct settings_text main_cf = { "/etc/postfix/main.cf", main_text, sizeof(main_text) - 1 };
        struct settings_text scached_conf = { "/etc/postfix/scached.conf", own, sizeof(own) - 1 };
        struct settings_request request = {
                .config_directory = "/etc/postfix", .overrides = options, .n_overrides = ELEMENTSOF(options)
        };
        _cleanup_(settings_freep) struct settings *settings = NULL;
        struct said *said = new_said(state);

        assert_int_equal(settings_load_texts(&request, &main_cf, &scached_conf, hear, said, &settings), 0);
        assert_string_equal(said->text, "");
        assert_row(settings, "max_idle", "9s", "-o");
        assert_row(settings, "ipc_timeout", "2", "-o");
        assert_row(settings, "daemon_timeout", "8s", "/etc/postfix/scached.conf:4");
        assert_row(settings, "agent_limit", "7", "/etc/postfix/main.cf:4");
        assert_row(settings, "connection_cache_ttl_limit", "2s", "default");
        assert_row(settings, "config_directory", "/etc/postfix", "-c");
        assert_int_equal(settings->max_idle_us, 9 * USEC_PER_SEC);
        assert_int_equal(settings->ipc_timeout_us, 2 * USEC_PER_SEC);
        assert_string_equal(settings->config_directory, "/etc/postfix");
}

/* What --check prints is a file that means the same. */
static void test_round_trip(void **state) {
        static const char text[] = "connection_cache_farewell = \\x20a$$b\\\\ \\xe9\\x20\n"
                                   "syslog_name = a$$b\n"
                                   "max_idle = ${connection_cache_ttl_limit}\n"
                                   "connection_cache_memory_limit = 100M\n"
                                   "share_between_users = YES\n";
        _cleanup_(settings_freep) struct settings *first = NULL, *second = NULL;
        char printed[2048] = "";
        size_t n = 0;

        assert_int_equal(load_texts(text, NULL, NULL, &first), 0);
        for (size_t i = 0; i < first->n_rows; i++)
                if (first->rows[i].fallback)
                        n += (size_t) snprintf(printed + n, sizeof(printed) - n, "%s = %s\n",
                                first->rows[i].name, first->rows[i].value);
        assert_true(n < sizeof(printed));

        assert_int_equal(load_texts(printed, NULL, new_said(state), &second), 0);
        for (size_t i = 0; i < first->n_rows; i++)
                assert_string_equal(first->rows[i].value, second->rows[i].value);
        assert_string_equal(first->farewell, " a$b\\ \xe9 ");
        assert_string_equal(second->farewell, first->farewell);
        assert_string_equal(second->identifier, "a$b/scache");
        assert_int_equal(second->max_idle_us, 2 * USEC_PER_SEC);
        assert_true(second->share_between_users);
}

/* A reload with bad settings keeps the old ones. */
static void test_failure_leaves_result(void **state) {
        _cleanup_(settings_freep) struct settings *settings = NULL;
        struct settings *before;

        (void) state;
        assert_int_equal(load_texts("max_idle = 5s", NULL, NULL, &settings), 0);
        before = settings;
        assert_int_equal(load_texts("max_idle = x", NULL, NULL, &settings), -EINVAL);
        assert_ptr_equal(settings, before);
        assert_int_equal(settings->max_idle_us, 5 * USEC_PER_SEC);
        settings_free(NULL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults),
                cmocka_unit_test(test_numbers),
                cmocka_unit_test(test_bad_values),
                cmocka_unit_test(test_words),
                cmocka_unit_test(test_identifier),
                cmocka_unit_test(test_farewell),
                cmocka_unit_test(test_farewell_size),
                cmocka_unit_test(test_precedence),
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_failure_leaves_result),
        };

        return cmocka_run_group_tests_name("settings", tests, setup, teardown);
}
