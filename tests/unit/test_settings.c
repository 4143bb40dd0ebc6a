/* settings: values, their bounds, where they come from, and what is said of the bad ones */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "scached/settings.h"

/* Everything one load had to say, a line for each sentence. */
struct said {
        char text[128 * 1024];
        size_t size;
        unsigned n_errors;
        unsigned n_warnings;
};

static void hear(void *userdata, int priority, const char *message) {
        struct said *said = userdata;

        said->n_errors += priority == LOG_ERR;
        said->n_warnings += priority == LOG_WARNING;
        said->size += (size_t) snprintf(said->text + said->size, sizeof(said->text) - said->size, "%s%s: %s",
                said->size > 0 ? "\n" : "", priority == LOG_ERR ? "error" : "warning", message);
        assert_true(said->size < sizeof(said->text));
}

static struct said *new_said(void **state) {
        struct said *said = *state;

        *said = (struct said){};
        return said;
}

static int setup(void **state) {
        *state = malloc(sizeof(struct said));
        return *state ? 0 : -1;
}

static int teardown(void **state) {
        free(*state);
        return 0;
}

/* Load with the text of scached.conf and, if any, of main.cf. */
static int load_texts(const char *own, const char *main_text, struct said *said, struct settings **ret) {
        struct settings_text main_cf = { "main.cf", main_text, main_text ? strlen(main_text) : 0 };
        struct settings_text scached_conf = { "scached.conf", own, own ? strlen(own) : 0 };
        struct settings_request request = { .process_id = 4711 };

        return settings_load_texts(&request, main_text ? &main_cf : NULL, own ? &scached_conf : NULL,
                said ? hear : NULL, said, ret);
}

static int load_options(size_t n, const char *const *options, struct said *said, struct settings **ret) {
        struct settings_request request = { .overrides = options, .n_overrides = n, .process_id = 4711 };

        return settings_load_texts(&request, NULL, NULL, said ? hear : NULL, said, ret);
}

static const struct settings_row *row_find(const struct settings *settings, const char *name) {
        for (size_t i = 0; i < settings->n_rows; i++)
                if (strcmp(settings->rows[i].name, name) == 0)
                        return &settings->rows[i];

        fail_msg("no row for %s", name);
        return NULL;
}

static void assert_row(
        const struct settings *settings, const char *name, const char *value, const char *source) {
        const struct settings_row *row = row_find(settings, name);

        assert_string_equal(row->value, value);
        assert_string_equal(row->source, source);
}

static void test_defaults(void **state) {
        _cleanup_(settings_freep)
        struct settings *settings = NULL;
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
        assert_int_equal(settings->agent_limit, 0);
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
                _cleanup_(settings_freep)
                struct settings *settings = NULL;
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

/* What is said, word for word. */
static const struct {
        const char *main_cf;
        const char *scached_conf;
        int r;
        const char *said;
} sentences[] = {
        { NULL, "# the cache\n\nconnection_cache_ttl_limit = 5x\n", -EINVAL,
                "error: scached.conf:3: connection_cache_ttl_limit = 5x: expected a time from 1s to "
                "2147483647s: a "
                "whole number with or without one of s m h d w" },
        { NULL, "max_idle = 1.5h", -EINVAL,
                "error: scached.conf:1: max_idle = 1.5h: expected a time from 1s to 2147483647s, or 0: a "
                "whole number "
                "with or without one of s m h d w" },
        { NULL, "agent_limit = lots", -EINVAL,
                "error: scached.conf:1: agent_limit = lots: expected a whole number from 1 to 16777216, or "
                "0" },
        { NULL, "request_size_limit = 1K", -EINVAL,
                "error: scached.conf:1: request_size_limit = 1K: expected from 4096 to 16777216 bytes, or "
                "0: a whole "
                "number with or without one of K M G" },
        { NULL, "connection_cache_memory_limit = 1M\nrequest_size_limit = 2M", -EINVAL,
                "error: scached.conf:2: request_size_limit = 2M: expected no more than "
                "connection_cache_memory_limit, "
                "else the request could not be kept" },
        { NULL, "share_between_users = maybe", -EINVAL,
                "error: scached.conf:1: share_between_users = maybe: expected yes or no" },
        { NULL, "syslog_facility = post", -EINVAL,
                "error: scached.conf:1: syslog_facility = post: expected a syslog facility, such as mail, "
                "daemon or "
                "local0" },
        { NULL, "syslog_name = my cache", -EINVAL,
                "error: scached.conf:1: syslog_name = my cache: expected a name of at most 64 bytes with no "
                "blanks in "
                "it" },
        { NULL, "connection_cache_farewell = QUIT\\r\\", -EINVAL,
                "error: scached.conf:1: connection_cache_farewell = QUIT\\r\\: expected at most 512 bytes "
                "with C's "
                "escapes: a backslash at the end escapes nothing" },
        { NULL, "connection_cache_farewell = QUIT", 0,
                "warning: scached.conf:1: connection_cache_farewell = QUIT: it does not end in \\n, so that "
                "the peer "
                "will wait for the rest of the line" },

        /* what the value came to is said where it is not what is written */
        { "limit = 5x", "max_idle = $limit", -EINVAL,
                "error: scached.conf:1: max_idle = $limit: it came out as \"5x\", expected a time from 1s "
                "to "
                "2147483647s, or 0: a whole number with or without one of s m h d w" },
        { NULL, "syslog_name = ${who}mail$who", 0,
                "warning: scached.conf:1: syslog_name = ${who}mail$who: who is not set in any file and "
                "counts as "
                "empty" },
        { NULL, "max_idle = $ipc_timeout\nipc_timeout = ${max_idle}0", -EINVAL,
                "error: scached.conf:2: ipc_timeout = ${max_idle}0: it needs the value of ipc_timeout to "
                "find the "
                "value of ipc_timeout\n"
                "error: scached.conf:1: max_idle = $ipc_timeout: it needs the value of max_idle to find the "
                "value of "
                "max_idle" },

        /* names */
        { NULL, "max_idel = 5s", 0,
                "warning: scached.conf:1: max_idel = 5s: there is no such parameter, did you mean "
                "max_idle?" },
        { NULL, "connection_cache_ttl_limits = 5s", 0,
                "warning: scached.conf:1: connection_cache_ttl_limits = 5s: there is no such parameter, did "
                "you mean "
                "connection_cache_ttl_limit?" },
        { NULL, "relayhost = [127.0.0.1]", 0,
                "warning: scached.conf:1: relayhost = [127.0.0.1]: there is no such parameter" },
        { NULL, "Max_Idle = 5s", 0, /* names know no case but their own */
                "warning: scached.conf:1: Max_Idle = 5s: there is no such parameter, did you mean "
                "max_idle?" },
        { NULL, "process_id = 1", -EINVAL, "error: scached.conf:1: process_id = 1: this name is read-only" },
        { "process_name = smtpd", NULL, 0,
                "warning: main.cf:1: process_name = smtpd: this name is read-only" },
        { NULL, "config_directory = /srv/scached", -EINVAL,
                "error: scached.conf:1: config_directory = /srv/scached: settings are already being read "
                "from " SETTINGS_CONFIG_DIRECTORY ", use -c to choose" },
        { NULL, "config_directory = " SETTINGS_CONFIG_DIRECTORY, 0, "" },
        { "config_directory = /etc/postfix", NULL, 0, "" },

        /* more than once */
        { NULL, "max_idle = 5s\n# c\nmax_idle = 6s\nmax_idle = 6s\n", 0,
                "warning: scached.conf:3: max_idle = 6s: overrides line 1 of the same file" },
        { "max_idle = 5s\nmax_idle = 6s\nfoo = 1\nfoo = 2\n", "max_idle = 7s", 0,
                "warning: main.cf:2: max_idle = 6s: overrides line 1 of the same file" },

        /* lines */
        { NULL, "max_idle 5s\n", -EINVAL,
                "error: scached.conf:1: max_idle 5s: expected name = value, there is no = after the name" },
        { NULL, "\n= 5s\n", -EINVAL,
                "error: scached.conf:2: = 5s: expected name = value, there is no name" },
        { NULL, "\tmax_idle = 5s\n", -EINVAL,
                "error: scached.conf:1: \\x09max_idle = 5s: expected name = value at the begin of the line, "
                "there is "
                "none that a blank could continue" },
        { "max_idle 5s\nmax_idle = 7s", NULL, 0,
                "warning: main.cf:1: max_idle 5s: expected name = value, there is no = after the name" },

        /* everything that is wrong is said */
        { "ipc_timeout = 1\n oops", "max_idle = x\n???\nagent_limit = y\nfoo = 1", -EINVAL,
                "error: scached.conf:2: ???: expected name = value, there is no = after the name\n"
                "error: scached.conf:3: agent_limit = y: expected a whole number from 1 to 16777216, or 0\n"
                "error: main.cf:1: ipc_timeout = 1 oops: expected a time from 1s to 2147483647s: a whole "
                "number with "
                "or without one of s m h d w\n"
                "error: scached.conf:1: max_idle = x: expected a time from 1s to 2147483647s, or 0: a whole "
                "number "
                "with or without one of s m h d w\n"
                "warning: scached.conf:4: foo = 1: there is no such parameter" },

        /* a bad value that another one overrides harms nobody */
        { "max_idle = x", "max_idle = 5s", 0, "" },

        /* what a terminal would act on is not passed on, and nothing is endless */
        { NULL, "max_idle = \x1b[2J\xc3\xa9", -EINVAL,
                "error: scached.conf:1: max_idle = \\x1b[2J\\xc3\\xa9: expected a time from 1s to "
                "2147483647s, or 0: a "
                "whole number with or without one of s m h d w" },
        { NULL,
                "max_idle = "
                "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"
                "12345678901",
                -EINVAL,
                "error: scached.conf:1: max_idle = "
                "01234567890123456789012345678901234567890123456789012345678901234567"
                "89012345678901234567890123456789...: expected a time from 1s to 2147483647s, or 0: a whole "
                "number "
                "with or without one of s m h d w" },
};

static void test_sentences(void **state) {
        for (size_t i = 0; i < ELEMENTSOF(sentences); i++) {
                _cleanup_(settings_freep)
                struct settings *settings = NULL;
                struct said *said = new_said(state);
                int r = load_texts(sentences[i].scached_conf, sentences[i].main_cf, said, &settings);

                assert_string_equal(said->text, sentences[i].said);
                assert_int_equal(r, sentences[i].r);
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
                _cleanup_(settings_freep)
                struct settings *settings = NULL;

                (void) snprintf(line, sizeof(line), "syslog_facility = %s", facilities[i].text);
                assert_int_equal(load_texts(line, NULL, new_said(state), &settings), 0);
                assert_int_equal(settings->syslog_facility, facilities[i].facility);
        }
        for (size_t i = 0; i < ELEMENTSOF(answers); i++) {
                _cleanup_(settings_freep)
                struct settings *settings = NULL;

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
                _cleanup_(settings_freep)
                struct settings *settings = NULL;
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
                _cleanup_(settings_freep)
                struct settings *settings = NULL;
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
                _cleanup_(settings_freep)
                struct settings *settings = NULL;
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
        _cleanup_(settings_freep)
        struct settings *settings = NULL;
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

static void test_options(void **state) {
        static const struct {
                const char *options[2];
                int r;
                const char *said;
        } cases[] = {
                { { "max_idle" }, -EINVAL,
                        "error: -o: max_idle: expected name = value, there is no = after the name" },
                { { "" }, -EINVAL, "error: -o: expected name = value, there is no name" },
                { { "=5" }, -EINVAL, "error: -o: =5: expected name = value, there is no name" },
                { { "max_idle=x", "agent_limit=-1" }, -EINVAL,
                        "error: -o: agent_limit = -1: expected a whole number from 1 to 16777216, or 0\n"
                        "error: -o: max_idle = x: expected a time from 1s to 2147483647s, or 0: a whole "
                        "number with or "
                        "without one of s m h d w" },
                { { "agent_limits=5" }, 0,
                        "warning: -o: agent_limits = 5: there is no such parameter, did you mean "
                        "agent_limit?" },
                { { "process_name=x" }, -EINVAL, "error: -o: process_name = x: this name is read-only" },
                { { "config_directory=/tmp" }, -EINVAL,
                        "error: -o: config_directory = /tmp: settings are already being read "
                        "from " SETTINGS_CONFIG_DIRECTORY ", use -c "
                        "to choose" },
                /* a name of one's own is fine where it is used */
                { { "idle=5", "max_idle=${idle}m" }, 0, "" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(settings_freep)
                struct settings *settings = NULL;
                struct said *said = new_said(state);
                int r = load_options(cases[i].options[1] ? 2 : 1, cases[i].options, said, &settings);

                assert_string_equal(said->text, cases[i].said);
                assert_int_equal(r, cases[i].r);
        }
}

/* What --check prints is a file that means the same. */
static void test_round_trip(void **state) {
        static const char text[] = "connection_cache_farewell = \\x20a$$b\\\\ \\xe9\\x20\n"
                                   "syslog_name = a$$b\n"
                                   "max_idle = ${connection_cache_ttl_limit}\n"
                                   "connection_cache_memory_limit = 100M\n"
                                   "share_between_users = YES\n";
        _cleanup_(settings_freep)
        struct settings *first = NULL, *second = NULL;
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
        _cleanup_(settings_freep)
        struct settings *settings = NULL;
        struct settings *before;

        (void) state;
        assert_int_equal(load_texts("max_idle = 5s", NULL, NULL, &settings), 0);
        before = settings;
        assert_int_equal(load_texts("max_idle = x", NULL, NULL, &settings), -EINVAL);
        assert_ptr_equal(settings, before);
        assert_int_equal(settings->max_idle_us, 5 * USEC_PER_SEC);
        settings_free(NULL);
}

static void test_report_limit(void **state) {
        _cleanup_(settings_freep)
        struct settings *settings = NULL;
        struct said *said = new_said(state);
        static char text[64 * 1024];
        size_t n = 0;

        while (n + 64 < sizeof(text))
                n += (size_t) snprintf(text + n, sizeof(text) - n, "foo%zu = 1\n", n);
        assert_int_equal(load_texts(text, NULL, said, &settings), 0);
        assert_int_equal(said->n_warnings, SETTINGS_REPORTS_MAX);
        assert_non_null(strstr(said->text, "\nwarning: more is wrong with the settings than is told here"));

        /* what is not told any more still counts */
        (void) snprintf(text + n, sizeof(text) - n, "process_id = 1\n");
        said = new_said(state);
        assert_int_equal(load_texts(text, NULL, said, &settings), -EINVAL);
        assert_int_equal(said->n_errors, 0);
}

/* --- files --- */

struct folder {
        char path[64];
        int fd;
};

static void folder_deinit(struct folder *folder) {
        (void) unlinkat(folder->fd, "main.cf", 0);
        (void) unlinkat(folder->fd, "scached.conf", 0);
        (void) unlinkat(folder->fd, "scached.conf", AT_REMOVEDIR);
        (void) close(folder->fd);
        (void) rmdir(folder->path);
}

static void folder_init(struct folder *folder) {
        (void) snprintf(folder->path, sizeof(folder->path), "/tmp/test_settings.XXXXXX");
        assert_non_null(mkdtemp(folder->path));
        folder->fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(folder->fd >= 0);
}

static void folder_write(const struct folder *folder, const char *name, const char *data, size_t size) {
        _cleanup_(closep)
        int fd = openat(folder->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, data, size), size);
}

static int folder_load(const struct folder *folder, struct said *said, struct settings **ret) {
        struct settings_request request = { .config_directory = folder->path };

        return settings_load(&request, hear, said, ret);
}

static void test_files(void **state) {
        _cleanup_(settings_freep)
        struct settings *empty = NULL, *settings = NULL;
        _cleanup_(folder_deinit)
        struct folder folder = { .fd = -1 };
        struct said *said = new_said(state);
        char source[128];

        folder_init(&folder);
        assert_int_equal(folder_load(&folder, said, &empty), 0);
        assert_row(empty, "max_idle", "100s", "default");
        assert_row(empty, "config_directory", folder.path, "-c");

        folder_write(&folder, "main.cf", "max_idle = 5s\nipc_timeout = 6s\n", 31);
        folder_write(&folder, "scached.conf", "\nipc_timeout = 7s", 17);
        assert_int_equal(folder_load(&folder, said, &settings), 0);
        assert_string_equal(said->text, "");
        (void) snprintf(source, sizeof(source), "%s/main.cf:1", folder.path);
        assert_row(settings, "max_idle", "5s", source);
        (void) snprintf(source, sizeof(source), "%s/scached.conf:2", folder.path);
        assert_row(settings, "ipc_timeout", "7s", source);
}

static void test_no_folder(void **state) {
        _cleanup_(settings_freep)
        struct settings *settings = NULL;
        struct settings_request request = { .config_directory = "/nonexistent/scached" };
        struct said *said = new_said(state);

        assert_int_equal(settings_load(&request, hear, said, &settings), -ENOENT);
        assert_string_equal(said->text,
                "error: /nonexistent/scached: cannot read settings from there: No such file or directory");

        request.config_directory = "/dev/null";
        assert_int_equal(settings_load(&request, hear, said, &settings), -ENOTDIR);
        assert_null(settings);
}

/* As root every file can be read, so what cannot be is no file at all. */
static void test_unreadable(void **state) {
        static const struct {
                int r;
                const char *problem;
        } cases[] = {
                { -EISDIR, "Is a directory" },
                { -EBADFD, "neither a file nor a device" },
                { -ELOOP, "Too many levels of symbolic links" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(folder_deinit)
                struct folder folder = { .fd = -1 };
                struct settings *settings = NULL;
                struct said *said = new_said(state);
                char expected[512];

                folder_init(&folder);
                if (cases[i].r == -EISDIR)
                        assert_int_equal(mkdirat(folder.fd, "scached.conf", 0700), 0);
                else if (cases[i].r == -EBADFD)
                        assert_int_equal(mkfifoat(folder.fd, "scached.conf", 0600), 0);
                else
                        assert_int_equal(symlinkat("scached.conf", folder.fd, "scached.conf"), 0);

                assert_int_equal(folder_load(&folder, said, &settings), cases[i].r);
                assert_null(settings);
                (void) snprintf(expected, sizeof(expected), "error: %s/scached.conf: cannot read it: %s",
                        folder.path, cases[i].problem);
                assert_string_equal(said->text, expected);

                /* what is wrong with the other one is said, too */
                folder_write(&folder, "main.cf", "max_idle = x\n", 13);
                said = new_said(state);
                assert_int_equal(folder_load(&folder, said, &settings), cases[i].r);
                assert_int_equal(said->n_errors, 2);
        }
}

static void test_masked(void **state) {
        _cleanup_(settings_freep)
        struct settings *settings = NULL;
        _cleanup_(folder_deinit)
        struct folder folder = { .fd = -1 };
        struct said *said = new_said(state);

        folder_init(&folder);
        assert_int_equal(symlinkat("/dev/null", folder.fd, "scached.conf"), 0);
        assert_int_equal(folder_load(&folder, said, &settings), 0);
        assert_string_equal(said->text, "");
}

static void test_file_size(void **state) {
        _cleanup_(freep)
        char *data = malloc(SETTINGS_FILE_MAX + 1);

        assert_non_null(data);
        memset(data, '\n', SETTINGS_FILE_MAX + 1);
        memcpy(data + SETTINGS_FILE_MAX - 12, "max_idle = 5", 12);

        for (unsigned i = 0; i < 2; i++) {
                _cleanup_(settings_freep)
                struct settings *settings = NULL;
                _cleanup_(folder_deinit)
                struct folder folder = { .fd = -1 };
                struct said *said = new_said(state);
                char expected[256];

                folder_init(&folder);
                folder_write(&folder, "scached.conf", data, SETTINGS_FILE_MAX + i);
                if (i == 0) {
                        assert_int_equal(folder_load(&folder, said, &settings), 0);
                        assert_int_equal(settings->max_idle_us, 5 * USEC_PER_SEC);
                        continue;
                }
                assert_int_equal(folder_load(&folder, said, &settings), -EINVAL);
                (void) snprintf(expected, sizeof(expected),
                        "error: %s/scached.conf: expected a file of at most 1048576 bytes", folder.path);
                assert_string_equal(said->text, expected);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults),
                cmocka_unit_test(test_numbers),
                cmocka_unit_test(test_bad_values),
                cmocka_unit_test(test_sentences),
                cmocka_unit_test(test_words),
                cmocka_unit_test(test_identifier),
                cmocka_unit_test(test_farewell),
                cmocka_unit_test(test_farewell_size),
                cmocka_unit_test(test_precedence),
                cmocka_unit_test(test_options),
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_failure_leaves_result),
                cmocka_unit_test(test_report_limit),
                cmocka_unit_test(test_files),
                cmocka_unit_test(test_no_folder),
                cmocka_unit_test(test_unreadable),
                cmocka_unit_test(test_masked),
                cmocka_unit_test(test_file_size),
        };

        return cmocka_run_group_tests_name("settings", tests, setup, teardown);
}
