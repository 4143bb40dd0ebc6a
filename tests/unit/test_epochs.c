/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "epochs/configuration.h"
#include "epochs/epoch.h"
#include "epochs/files.h"
#include "epochs/mounts.h"
#include "epochs/process.h"

#define SECOND USEC_PER_SEC

/* The start of a process. */

TEST(test_start_of_a_process) {
        static const struct {
                const char *stat;
                int r;
                uint64_t start_us;
        } cases[] = {
                { "1 (smtp) S 12 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2", 0, 123450000 },
                { "1 (a) b) S 12 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 7", 0, 70000 },
                { "1 (smtp) S 12 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 0 1", 0, 0 },
                { "1 (smtp) S 12 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 ", .r = -EBADMSG },
                { "1 (smtp) S 12 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 -1 1", .r = -EBADMSG },
                { "1 (smtp) S 12 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0", .r = -EBADMSG },
                { "1 (smtp) S 12 1 1 0 -1 1 1 2 3 4 5 6 7 8 20 0 1 0 99999999999999999999 1",
                        .r = -EBADMSG },
                { "1 (smtp) S 12 1 1 0 -1 1 1 2 3 4 5 6 7 8 20 0 1 0 18446744073709551615 1",
                        .r = -EBADMSG },
                { "1 (smtp) S -1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 7", .r = -EBADMSG },
                { "1 (smtp) S 2147483648 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 7", .r = -EBADMSG },
                { "1 smtp S 1", .r = -EBADMSG },
                { "", .r = -EBADMSG },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint64_t start_us = 0;
                pid_t parent = 0;

                assert_int_equal(
                        process_parse_stat(slice_of(cases[i].stat), 100, &parent, &start_us), cases[i].r);
                assert_int_equal(start_us, cases[i].start_us);
                assert_int_equal(parent, cases[i].r < 0 ? 0 : 12);
        }
}

/* Whether two processes have the same file at a path. */

TEST(test_mounts) {
        static const char *const host = "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
                                        "23 22 0:21 / /run rw - tmpfs tmpfs rw\n"
                                        "24 22 254:1 / /srv rw - ext4 /dev/vdb rw\n";
        static const struct {
                const char *theirs, *path;
                bool agree;
        } cases[] = {
                /* The host itself, and a sandbox with its own /tmp, read-only mounts, or a mount in two halves. */
                { "22 1 254:0 / / rw - ext4 /dev/vda rw\n24 22 254:1 / /srv rw - x x x\n", "/srv/main.cf",
                        true },
                { "52 1 254:0 / / ro - x x x\n53 52 0:77 / /tmp rw - x x x\n", "/etc/main.cf", true },
                { "52 1 254:0 / / ro - x x x\n53 52 0:77 / /tmp rw - x x x\n", "/tmp/main.cf", false },
                { "52 1 254:0 / / ro - x x x\n53 52 254:0 /etc /etc ro - x x x\n", "/etc/main.cf", true },
                { "52 51 0:1 / / ro - x x x\n53 52 254:0 / / ro - x x x\n", "/etc/main.cf", true },
                { "52 52 254:0 / / ro - x x x\n", "/etc/main.cf", true },
                /* A container with a file system of its own, or a folder of ours. What it shares is the same. */
                { "52 51 0:90 / / rw - overlay x x\n", "/etc/main.cf", false },
                { "52 51 254:0 /guest / rw - x x x\n", "/etc/main.cf", false },
                { "52 51 0:90 / / rw - x x x\n53 52 254:0 /etc /etc rw - x x x\n", "/etc/main.cf", true },
                { "52 51 0:90 / / rw - x x x\n53 52 254:0 /etc /etc rw - x x x\n", "/etcetera/main.cf",
                        false },
                { "52 51 0:90 / / rw - x x x\n53 52 254:0 /etc/main.cf /etc/main.cf rw - x x x\n",
                        "/etc/main.cf", true },
                { "52 51 0:90 / / rw - x x x\n53 52 254:0 /etc/x /etc/main.cf rw - x x x\n", "/etc/main.cf",
                        false },
                { "52 51 254:0 / / rw - x x x\n53 52 254:0 /srv/etc /etc rw - x x x\n", "/etc/main.cf",
                        false },
                { "52 51 0:90 / / rw - x x x\n53 52 254:1 / /srv rw - x x x\n", "/srv/a b", true },
                { "52 51 0:90 / / rw - x x x\n53 52 254:1 /a\\040b /srv/a\\040b rw - x x x\n", "/srv/a b",
                        true },
                { "52 51 0:90 / / rw - x x x\n53 52 254:1 /a\\040b /srv/a\\040b rw - x x x\n", "/srv/a_b",
                        false },
                /* Mounts that cannot be reached: below another one that came later. */
                { "52 51 254:0 / / rw - x x x\n54 52 0:9 / /etc/p rw - x x x\n53 52 254:0 /etc /etc rw - x "
                  "x x\n",
                        "/etc/p/main.cf", true },
                { "52 51 254:0 / / rw - x x x\n54 52 254:0 /etc/p /etc/p rw - x x x\n53 52 0:9 / /etc rw - "
                  "x x x\n",
                        "/etc/p/main.cf", false },
                { "52 51 254:0 / / rw - x x x\n53 52 0:9 / /etc rw - x x x\n54 53 254:0 /etc /etc rw - x x "
                  "x\n",
                        "/etc/main.cf", true },
                /* No list, or one that makes no sense. */
                { "", "/etc/main.cf", false },
                { "52 51 254:0 / / rw - x x x", "/etc/main.cf", false },
                { "52 51 254:0\n", "/etc/main.cf", false },
                { "52 51 254:0 / /srv rw - x x x\n", "/srv/main.cf", false },
                { "52 51 0:1 / / rw - x x x\n53 52 254:0 / / rw - x x x\n52 53 254:0 / / rw - x x x\n", "/x",
                        false },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                const struct slice theirs = slice_of(cases[i].theirs);

                if (mounts_agree(slice_of(host), theirs, cases[i].path) != cases[i].agree ||
                        mounts_agree(theirs, slice_of(host), cases[i].path) != cases[i].agree)
                        fail_msg("%s: not %i in\n%s", cases[i].path, cases[i].agree, cases[i].theirs);
        }
}

/* Since when the state of files has been as it is. */

static uint64_t since(const struct sight looks[], size_t n) {
        struct history history = {};

        for (size_t i = 0; i < n; i++)
                history_note(&history, &looks[i]);
        return history.since_us;
}

#define SINCE(...)                                   \
        since((const struct sight[]){ __VA_ARGS__ }, \
                sizeof((const struct sight[]){ __VA_ARGS__ }) / sizeof(struct sight))
#define LOOK(state, changed, at) \
        { .digest = (state), .changed_us = (changed), .before_us = (at), .after_us = (at) + 1 }

TEST(test_since_when) {
        /* What the files tell at the first look, unless they tell of what is to come: then the clock was set. */
        assert_int_equal(SINCE(LOOK(1, 500, 1000)), 500);
        assert_int_equal(SINCE(LOOK(1, 5000, 1000)), 1001);

        /* Another look changes nothing, be it only a directory that has changed. */
        assert_int_equal(SINCE(LOOK(1, 500, 1000), LOOK(1, 1500, 2000)), 500);

        /* A change has its own time. One that the times do not tell of was made just now. */
        assert_int_equal(SINCE(LOOK(1, 500, 1000), LOOK(2, 1500, 2000)), 1500);
        assert_int_equal(SINCE(LOOK(1, 500, 1000), LOOK(2, 900, 2000)), 2001);
        assert_int_equal(SINCE(LOOK(1, 500, 1000), LOOK(1, 500, 1600), LOOK(2, 1500, 2000)), 2001);
        assert_int_equal(SINCE(LOOK(1, 500, 1000), LOOK(2, 900, 2000), LOOK(1, 500, 3000)), 3001);
}

TEST(test_a_clock_that_was_set) {
        struct sight look = LOOK(2, 1500, 2000);
        struct history history = {};

        look.clock_set_us = 1800;
        history_note(&history, &look);
        assert_int_equal(history.since_us, 1800);
        assert_true(history_is_of(&history, 2));
        assert_false(history_is_of(&history, 3));
}

TEST(test_covered) {
        const struct history history = { .since_us = 10 * SECOND };

        assert_false(history_covers(&history, 9 * SECOND));
        assert_false(history_covers(&history, 10 * SECOND));
        /* A file's time may be 10 ms behind. */
        assert_false(history_covers(&history, 10 * SECOND + 10 * USEC_PER_MSEC));
        assert_true(history_covers(&history, 10 * SECOND + 50 * USEC_PER_MSEC));
        assert_true(history_covers(&history, 11 * SECOND));
}

TEST(test_over) {
        uint64_t current = 1;
        const struct epoch epoch = { 1, &current };

        assert_false(epoch_is_over((struct epoch){}));
        assert_true(epoch_is_over(epoch_unknown()));
        assert_false(epoch_is_over(epoch));
        current = 2;
        assert_true(epoch_is_over(epoch));
}

/* Which files. */

static const struct {
        const char *main_cf, *command, *files;
} cases[] = {
        { "", "smtp", "" },
        { "smtp_tls_security_level = encrypt\nsmtp_bind_address = 192.0.2.1\n", "smtp -t unix", "" },
        { "smtp_sasl_password_maps = hash:/etc/postfix/sasl\n", "smtp", "/etc/postfix/sasl.db" },
        { "lmtp_sasl_password_maps = lmdb:/a, cdb:/b btree:/c,\n texthash:/d", "smtp",
                "/a.lmdb /b.cdb /c.db /d" },
        { "smtp_tls_policy_maps = proxy:hash:/a, static:all, ldap:/b.cf, inline:{x=y}, {regexp:/c}", "smtp",
                "/a.db /b.cf /c" },
        { "smtp_generic_maps = sdbm:/a, dbm:/b, pcre:/c cidr:/d, /e", "smtp",
                "/a.dir /a.pag /b.dir /b.pag /c /d /e" },
        { "smtp_tls_CAfile = /ca.pem\nsmtp_tls_CApath=/certs/\nsmtp_tls_chain_files = /a.pem, /b.pem\n",
                "smtp", "/ca.pem /certs/ /a.pem /b.pem" },
        { "smtp_a = hash:/a\nsmtp_b = hash:/a hash:/b\n", "smtp", "/a.db /b.db" },
        { "smtp_a = hash:/a\nsmtp_a = hash:/b\n", "smtp", "/b.db" },
        { "virtual_alias_maps = hash:/v\nsmtpd_x_maps = hash:/d\n", "smtp", "" },
        { "smtp_tls_session_cache_database = btree:/cache\nsmtp_sasl_auth_cache_name = btree:/auth\n",
                "smtp", "" },
        { "smtp_a = ldap://host/x, memcache:/m.cf, tcp:localhost:1\n", "smtp", "/m.cf" },
        /* Paths that are not absolute are seen from the queue directory. */
        { "smtp_a = hash:etc/a\n", "smtp", "/queue/etc/a.db" },
        /* Names. */
        { "smtp_a = hash:$config_directory/a\n", "smtp", "/directory/a.db" },
        { "t = hash\np=${t}:/\nsmtp_a = ${p}a\n", "smtp", "/a.db" },
        { "smtp_a = ${default_database_type}:/a\n", "smtp", "/a.db /a.lmdb /a.cdb /a.dir /a.pag /a" },
        { "smtp_helo_name = $myhostname\nsmtp_a = ${x?hash:$y/a}\n", "smtp", "" },
        { "smtp_a = hash:$data_directory/a\n", "smtp", NULL },
        { "smtp_a = hash:$nobody\n", "smtp", NULL },
        { "smtp_a = ${x\n", "smtp", NULL },
        /* The command line. */
        { "smtp_a = hash:/a\n", "smtp -t unix -o smtp_a=hash:/b -osmtp_b=texthash:/c", "/b.db /c" },
        { "mine = hash:/a\n", "smtp -o smtp_a=$mine", "/a.db" },
        { "", "smtp -o mine=hash:/a -o smtp_a=$mine -o", "/a.db" },
};

/* A command line as the kernel shows it, made of words. */
static struct slice command_of(const char *words, char *to) {
        size_t size = strlen(words) + 1;

        memcpy(to, words, size);
        for (size_t i = 0; i < size; i++)
                if (to[i] == ' ')
                        to[i] = '\0';
        to[size] = '\0';
        return (struct slice){ to, size };
}

TEST(test_which_files) {
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char problem[CONFIGURATION_PROBLEM_MAX] = "", got[512] = "", command[128];
                const struct configuration configuration = { "/directory", "/queue",
                        slice_of(cases[i].main_cf), command_of(cases[i].command, command) };
                struct configuration_files files;
                int r = configuration_files(&configuration, &files, problem);

                for (size_t j = 0; j < files.n; j++) {
                        (void) strcat(got, j > 0 ? " " : "");
                        (void) strcat(got, files.paths[j]);
                }
                configuration_files_deinit(&files);
                assert_int_equal(r, cases[i].files ? 0 : -EINVAL);
                if (cases[i].files)
                        assert_string_equal(got, cases[i].files);
                else
                        assert_true(strncmp(problem, "smtp_a", 6) == 0);
        }
}

TEST(test_too_many_files) {
        char main_cf[CONFIGURATION_FILES_MAX * 8 + 64] = "smtp_a =", problem[CONFIGURATION_PROBLEM_MAX];
        struct configuration configuration = { "/directory", "/queue", {}, {} };
        struct configuration_files files;
        size_t size = strlen(main_cf);

        for (unsigned i = 0; i <= CONFIGURATION_FILES_MAX; i++) {
                configuration.main_cf = (struct slice){ main_cf, size };
                assert_int_equal(configuration_files(&configuration, &files, problem), 0);
                assert_int_equal(files.n, i);
                configuration_files_deinit(&files);
                size += (size_t) snprintf(main_cf + size, sizeof(main_cf) - size, " /%u", i);
        }
        configuration.main_cf = (struct slice){ main_cf, size };
        assert_int_equal(configuration_files(&configuration, &files, problem), -EINVAL);
        configuration_files_deinit(&files);
}

TEST(test_services) {
        static const char *const services[][2] = {
                { "smtp -t unix -u -c", "smtp" },
                { "/usr/lib/postfix/sbin/smtp -t unix", "smtp" },
                { "smtp -n relay -t unix -o syslog_name=x", "relay" },
                { "lmtp -nlocal-lmtp", "local-lmtp" },
                { "smtp -n", "smtp" },
        };
        char command[128];

        for (size_t i = 0; i < ELEMENTSOF(services); i++)
                assert_true(slice_equal(configuration_service(command_of(services[i][0], command)),
                        slice_of(services[i][1])));
        assert_int_equal(configuration_service((struct slice){}).size, 0);
        assert_int_equal(configuration_service(SLICE("no end")).size, 0);
}

TEST(test_values) {
        const struct configuration configuration = { "/directory", "/queue",
                SLICE("a = $b/x\nb = /b\nc = ${\n"), {} };
        _cleanup_(freep) char *a = NULL, *d = NULL;
        char *c;

        assert_int_equal(configuration_value(&configuration, "a", "", &a), 0);
        assert_string_equal(a, "/b/x");
        assert_int_equal(configuration_value(&configuration, "d", "not set", &d), 0);
        assert_string_equal(d, "not set");
        assert_int_equal(configuration_value(&configuration, "c", "", &c), -EINVAL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_start_of_a_process),
                cmocka_unit_test(test_mounts),
                cmocka_unit_test(test_since_when),
                cmocka_unit_test(test_a_clock_that_was_set),
                cmocka_unit_test(test_covered),
                cmocka_unit_test(test_over),
                cmocka_unit_test(test_which_files),
                cmocka_unit_test(test_too_many_files),
                cmocka_unit_test(test_services),
                cmocka_unit_test(test_values),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
