/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settings: what is said of the bad ones */
#include "test_settings.h"

/* What is said, word for word. */
static const struct {
        const char *main_cf;
        const char *scached_conf;
        int r;
        const char *said;
} sentences[] = {
        { NULL, "# the cache\n\nconnection_cache_ttl_limit = 5x\n", -EINVAL,
                "error: scached.conf:3: connection_cache_ttl_limit = 5x: expected a time from 1s to "
                "2147483647s: a whole number, optionally followed by s, m, h, d or w" },
        { NULL, "max_idle = 1.5h", -EINVAL,
                "error: scached.conf:1: max_idle = 1.5h: expected a time from 1s to 2147483647s, or 0: a "
                "whole number, optionally followed by s, m, h, d or w" },
        { NULL, "agent_limit = lots", -EINVAL,
                "error: scached.conf:1: agent_limit = lots: expected a whole number from 1 to 16777216, or "
                "0" },
        { NULL, "request_size_limit = 1K", -EINVAL,
                "error: scached.conf:1: request_size_limit = 1K: expected from 4096 to 16777216 bytes, or "
                "0: a whole number, optionally followed by K, M or G" },
        { NULL, "connection_cache_memory_limit = 1M\nrequest_size_limit = 2M", -EINVAL,
                "error: scached.conf:2: request_size_limit = 2M: expected at most "
                "connection_cache_memory_limit" },
        { NULL, "share_between_users = maybe", -EINVAL,
                "error: scached.conf:1: share_between_users = maybe: expected yes or no" },
        { NULL, "syslog_facility = post", -EINVAL,
                "error: scached.conf:1: syslog_facility = post: expected a syslog facility, such as mail, "
                "daemon or "
                "local0" },
        { NULL, "syslog_name = my cache", -EINVAL,
                "error: scached.conf:1: syslog_name = my cache: expected a name of at most 64 bytes without "
                "blanks" },
        { NULL, "connection_cache_farewell = QUIT\\r\\", -EINVAL,
                "error: scached.conf:1: connection_cache_farewell = QUIT\\r\\: expected at most 512 bytes "
                "with C's "
                "escapes: there is nothing after the last backslash" },
        { NULL, "connection_cache_farewell = QUIT", 0,
                "warning: scached.conf:1: connection_cache_farewell = QUIT: it does not end in \\n, so the "
                "peer will wait for the end of the line" },

        /* what the value came to is said where it is not what is written */
        { "limit = 5x", "max_idle = $limit", -EINVAL,
                "error: scached.conf:1: max_idle = $limit: it expands to \"5x\", expected a time from 1s "
                "to "
                "2147483647s, or 0: a whole number, optionally followed by s, m, h, d or w" },
        { NULL, "syslog_name = ${who}mail$who", 0,
                "warning: scached.conf:1: syslog_name = ${who}mail$who: who is not set and counts as "
                "empty" },
        { NULL, "max_idle = $ipc_timeout\nipc_timeout = ${max_idle}0", -EINVAL,
                "error: scached.conf:2: ipc_timeout = ${max_idle}0: it is circular, the value of "
                "ipc_timeout needs the value of ipc_timeout\n"
                "error: scached.conf:1: max_idle = $ipc_timeout: it is circular, the value of max_idle "
                "needs the value of max_idle" },

        /* names */
        { NULL, "max_idel = 5s", 0,
                "warning: scached.conf:1: max_idel = 5s: unknown parameter, did you mean "
                "max_idle?" },
        { NULL, "connection_cache_ttl_limits = 5s", 0,
                "warning: scached.conf:1: connection_cache_ttl_limits = 5s: unknown parameter, did "
                "you mean "
                "connection_cache_ttl_limit?" },
        { NULL, "relayhost = [127.0.0.1]", 0,
                "warning: scached.conf:1: relayhost = [127.0.0.1]: unknown parameter" },
        { NULL, "Max_Idle = 5s", 0, /* names know no case but their own */
                "warning: scached.conf:1: Max_Idle = 5s: unknown parameter, did you mean "
                "max_idle?" },
        { NULL, "process_id = 1", -EINVAL,
                "error: scached.conf:1: process_id = 1: this parameter is read-only" },
        { "process_name = smtpd", NULL, 0,
                "warning: main.cf:1: process_name = smtpd: this parameter is read-only" },
        { NULL, "config_directory = /srv/scached", -EINVAL,
                "error: scached.conf:1: config_directory = /srv/scached: the settings are read "
                "from " SETTINGS_CONFIG_DIRECTORY ", use -c to choose another directory" },
        { NULL, "config_directory = " SETTINGS_CONFIG_DIRECTORY, 0, "" },
        { "config_directory = /etc/postfix", NULL, 0, "" },

        /* more than once */
        { NULL, "max_idle = 5s\n# c\nmax_idle = 6s\nmax_idle = 6s\n", 0,
                "warning: scached.conf:3: max_idle = 6s: overrides line 1 of the same file" },
        { "max_idle = 5s\nmax_idle = 6s\nfoo = 1\nfoo = 2\n", "max_idle = 7s", 0,
                "warning: main.cf:2: max_idle = 6s: overrides line 1 of the same file" },

        /* lines */
        { NULL, "max_idle 5s\n", -EINVAL,
                "error: scached.conf:1: max_idle 5s: expected name = value, the = is missing" },
        { NULL, "\n= 5s\n", -EINVAL,
                "error: scached.conf:2: = 5s: expected name = value, the name is missing" },
        { NULL, "\tmax_idle = 5s\n", -EINVAL,
                "error: scached.conf:1: \\x09max_idle = 5s: expected name = value, a line that begins with "
                "a blank continues the previous one" },
        { "max_idle 5s\nmax_idle = 7s", NULL, 0,
                "warning: main.cf:1: max_idle 5s: expected name = value, the = is missing" },

        /* everything that is wrong is said */
        { "ipc_timeout = 1\n oops", "max_idle = x\n???\nagent_limit = y\nfoo = 1", -EINVAL,
                "error: scached.conf:2: ???: expected name = value, the = is missing\n"
                "error: scached.conf:3: agent_limit = y: expected a whole number from 1 to 16777216, or 0\n"
                "error: main.cf:1: ipc_timeout = 1 oops: expected a time from 1s to 2147483647s: a whole "
                "number, optionally followed by s, m, h, d or w\n"
                "error: scached.conf:1: max_idle = x: expected a time from 1s to 2147483647s, or 0: a whole "
                "number, optionally followed by s, m, h, d or w\n"
                "warning: scached.conf:4: foo = 1: unknown parameter" },

        /* a bad value that another one overrides harms nobody */
        { "max_idle = x", "max_idle = 5s", 0, "" },

        /* what a terminal would act on is not passed on, and nothing is endless */
        { NULL, "max_idle = \x1b[2J\xc3\xa9", -EINVAL,
                "error: scached.conf:1: max_idle = \\x1b[2J\\xc3\\xa9: expected a time from 1s to "
                "2147483647s, or 0: a whole number, optionally followed by s, m, h, d or w" },
        { NULL,
                "max_idle = "
                "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"
                "12345678901",
                -EINVAL,
                "error: scached.conf:1: max_idle = "
                "01234567890123456789012345678901234567890123456789012345678901234567"
                "89012345678901234567890123456789...: expected a time from 1s to 2147483647s, or 0: a whole "
                "number, optionally followed by s, m, h, d or w" },
};

static void test_sentences(void **state) {
        for (size_t i = 0; i < ELEMENTSOF(sentences); i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;
                struct said *said = new_said(state);
                int r = load_texts(sentences[i].scached_conf, sentences[i].main_cf, said, &settings);

                assert_string_equal(said->text, sentences[i].said);
                assert_int_equal(r, sentences[i].r);
        }
}

static void test_options(void **state) {
        static const struct {
                const char *options[2];
                int r;
                const char *said;
        } cases[] = {
                { { "max_idle" }, -EINVAL, "error: -o: max_idle: expected name = value, the = is missing" },
                { { "" }, -EINVAL, "error: -o: expected name = value, the name is missing" },
                { { "=5" }, -EINVAL, "error: -o: =5: expected name = value, the name is missing" },
                { { "max_idle=x", "agent_limit=-1" }, -EINVAL,
                        "error: -o: agent_limit = -1: expected a whole number from 1 to 16777216, or 0\n"
                        "error: -o: max_idle = x: expected a time from 1s to 2147483647s, or 0: a whole "
                        "number, optionally followed by s, m, h, d or w" },
                { { "agent_limits=5" }, 0,
                        "warning: -o: agent_limits = 5: unknown parameter, did you mean "
                        "agent_limit?" },
                { { "process_name=x" }, -EINVAL,
                        "error: -o: process_name = x: this parameter is read-only" },
                { { "config_directory=/tmp" }, -EINVAL,
                        "error: -o: config_directory = /tmp: the settings are read "
                        "from " SETTINGS_CONFIG_DIRECTORY ", use -c to choose another directory" },
                /* a name of one's own is fine where it is used */
                { { "idle=5", "max_idle=${idle}m" }, 0, "" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;
                struct said *said = new_said(state);
                int r = load_options(cases[i].options[1] ? 2 : 1, cases[i].options, said, &settings);

                assert_string_equal(said->text, cases[i].said);
                assert_int_equal(r, cases[i].r);
        }
}

static void test_report_limit(void **state) {
        _cleanup_(settings_freep) struct settings *settings = NULL;
        struct said *said = new_said(state);
        static char text[64 * 1024];
        size_t n = 0;

        while (n + 64 < sizeof(text))
                n += (size_t) snprintf(text + n, sizeof(text) - n, "foo%zu = 1\n", n);
        assert_int_equal(load_texts(text, NULL, said, &settings), 0);
        assert_int_equal(said->n_warnings, SETTINGS_REPORTS_MAX);
        assert_non_null(strstr(said->text, "\nwarning: further problems with the settings are not shown"));

        /* what is not told any more still counts */
        (void) snprintf(text + n, sizeof(text) - n, "process_id = 1\n");
        said = new_said(state);
        assert_int_equal(load_texts(text, NULL, said, &settings), -EINVAL);
        assert_int_equal(said->n_errors, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_sentences),
                cmocka_unit_test(test_options),
                cmocka_unit_test(test_report_limit),
        };

        return cmocka_run_group_tests_name("settings reports", tests, setup, teardown);
}
