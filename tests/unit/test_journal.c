/* Where lines go: to the journal with fields, under which name; or as text for people. */

#include "unit.h"

#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/journal.h"

#define FACILITY_FIELD "SYSLOG_FACILITY=3" /* LOG_DAEMON */

/* The fields of the last line that went to the journal. The program's own takes the place of libsystemd's. */
static char fields[8192];

int sd_journal_sendv(const struct iovec *iov, int n);
int sd_journal_sendv(const struct iovec *iov, int n) {
        fields[0] = 0;
        for (int i = 0; i < n; i++) {
                strncat(fields, iov[i].iov_base, iov[i].iov_len);
                strcat(fields, "\n");
        }
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
                cmocka_unit_test(test_text_for_people),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
