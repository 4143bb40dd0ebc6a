/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where lines go: to the journal with fields, under which name; or as text for people. */

#include "unit.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/datagram.h"
#include "daemon/journal.h"

#define FACILITY_FIELD "SYSLOG_FACILITY=3" /* LOG_DAEMON */

/* The last line that went to the journal, and whether the journal takes one. These functions stand in for the room's own. */
static char fields[8192];
static size_t fields_size;
static int taken;
static unsigned n_told; /* lines that tell of lost ones */

void datagram_init(struct datagram *datagram, const char *path) {
        *datagram = (struct datagram){ -1, path };
}

void datagram_release(struct datagram *datagram) {
        (void) datagram;
}

int datagram_send(
        struct datagram *datagram, const struct iovec iov[], size_t n_iov, const int fds[], size_t n_fds) {
        (void) datagram;
        (void) fds;
        assert_int_equal(n_fds, 0);
        assert_int_equal(n_iov, 1);
        if (taken < 0)
                return taken;

        fields_size = iov->iov_len;
        assert_true(fields_size < sizeof(fields));
        memcpy(fields, iov->iov_base, fields_size);
        fields[fields_size] = 0;
        n_told += strstr(fields, "MESSAGE=3 lines were not written: ") != NULL;
        return 0;
}

static bool has_field(const char *field) {
        const char *found = strstr(fields, field);

        return found && (found == fields || found[-1] == '\n') && found[strlen(field)] == '\n';
}

/* Let standard error be a pipe, and the journal if IS_JOURNAL. Gives the end to read from. */
static int redirect(bool is_journal, int *saved_fd) {
        char stream[64];
        struct stat st;
        int fds[2];

        assert_int_equal(pipe(fds), 0);
        *saved_fd = dup(STDERR_FILENO);
        assert_int_equal(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
        assert_int_equal(fstat(fds[1], &st), 0);
        (void) close(fds[1]);
        (void) snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t) st.st_dev,
                (uintmax_t) st.st_ino + (is_journal ? 0 : 1));
        assert_int_equal(setenv("JOURNAL_STREAM", stream, true), 0);
        return fds[0];
}

TEST(test_only_statistics_go_under_the_name_of_postfix) {
        _cleanup_(journal_freep) struct journal *journal = NULL;
        _cleanup_(closep) int fd = -1;
        int saved_fd;

        fd = redirect(true, &saved_fd);
        assert_int_equal(journal_new(&journal, true), 0);
        assert_int_equal(journal_set_identity(journal, "postfix/scache", LOG_DAEMON), 0);
        (void) dup2(saved_fd, STDERR_FILENO);
        (void) close(saved_fd);

        for (enum event event = 0; event < _EVENT_MAX; event++) {
                journal_write(journal, event, NULL, (struct journal_place){ "file", 1, "function" },
                        "line %i", (int) event);
                assert_true(has_field(event == EVENT_STATISTICS ? "SYSLOG_IDENTIFIER=postfix/scache"
                                                                : "SYSLOG_IDENTIFIER=scached"));
                assert_true(has_field(FACILITY_FIELD));
        }
}

/* A journal that believes that standard error goes to the real one. */
static struct journal *native_journal(void) {
        struct journal *journal;
        int saved_fd, fd;

        fd = redirect(true, &saved_fd);
        assert_int_equal(journal_new(&journal, true), 0);
        (void) dup2(saved_fd, STDERR_FILENO);
        (void) close(saved_fd);
        (void) close(fd);
        return journal;
}

TEST(test_label_with_line_break_is_one_field) {
        static const char field[] = "SCACHED_LABEL\n\x11\0\0\0\0\0\0\0a\nMESSAGE=false\nb\n";
        const struct journal_subject subject = { "native", 1, 2, SLICE("a\nMESSAGE=false\nb") };
        _cleanup_(journal_freep) struct journal *journal = native_journal();

        taken = 0;
        journal_write(
                journal, EVENT_TRACE, &subject, (struct journal_place){ "file", 1, "function" }, "a line");
        assert_non_null(memmem(fields, fields_size, field, sizeof(field) - 1));
}

TEST(test_lines_that_are_not_taken_are_counted) {
        static const struct journal_place place = { "file", 1, "function" };
        _cleanup_(journal_freep) struct journal *journal = native_journal();

        taken = -EAGAIN;
        fields[0] = 0;
        for (int i = 0; i < 3; i++)
                journal_write(journal, EVENT_STARTED, NULL, place, "lost");
        assert_string_equal(fields, "");

        taken = 0;
        for (int i = 0; i < 2; i++) {
                journal_write(journal, EVENT_STARTED, NULL, place, "seen");
                assert_true(has_field("MESSAGE=seen"));
                assert_int_equal(n_told, 1);
        }
}

TEST(test_text_for_people) {
        static const struct {
                enum event event;
                const char *line;
        } lines[] = {
                { EVENT_SETTINGS_BAD, "scached: error: a line\n" },
                { EVENT_SETTINGS_DOUBTFUL, "scached: warning: a line\n" },
                { EVENT_LIMIT_REACHED, "scached: a line\n" },
                { EVENT_STARTED, "scached: a line\n" },
                { EVENT_TRACE, "scached: a line\n" },
        };
        _cleanup_(journal_freep) struct journal *journal = NULL;
        _cleanup_(closep) int fd = -1;
        int saved_fd;

        /* JOURNAL_STREAM is what somebody before us had. */
        fd = redirect(false, &saved_fd);
        assert_int_equal(journal_new(&journal, true), 0);
        for (size_t i = 0; i < ELEMENTSOF(lines); i++) {
                char text[256] = "";

                journal_write(journal, lines[i].event, NULL, (struct journal_place){}, "a line");
                assert_true(read(fd, text, sizeof(text) - 1) > 0);
                assert_string_equal(text, lines[i].line);
        }
        (void) dup2(saved_fd, STDERR_FILENO);
        (void) close(saved_fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_only_statistics_go_under_the_name_of_postfix),
                cmocka_unit_test(test_label_with_line_break_is_one_field),
                cmocka_unit_test(test_lines_that_are_not_taken_are_counted),
                cmocka_unit_test(test_text_for_people),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
