#include "daemon/journal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>

/* CODE_FILE= and the like are given by our own callers. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "base/clock.h"

#define LINE_MAX_BYTES  2048
#define FIELD_MAX_BYTES 512
#define FIELDS_MAX      12

/* The lines that Postfix's own cache writes, too, go under its name where that is wanted. Programs that read Postfix's log
 * complain of any others there. */
#define IDENTIFIER "scached"

/* Of each limited kind, this many lines in this time. */
#define LIMIT_BURST       10
#define LIMIT_INTERVAL_US (UINT64_C(30) * USEC_PER_SEC)

static const struct {
        const char *message_id;
        int priority;
        bool limited;
} kinds[_EVENT_MAX] = {
#define EVENT(name, id, priority, limited) [EVENT_##name] = { "MESSAGE_ID=" id, priority, limited },
        EVENTS(EVENT)
#undef EVENT
};

struct journal {
        bool verbose;
        bool native; /* standard error goes to the journal, so fields can */
        char *statistics_identifier;
        int facility;
        struct {
                uint64_t since_us;
                unsigned n;
                uint64_t suppressed;
        } limits[_EVENT_MAX];
};

/* The service manager says in JOURNAL_STREAM which socket it gave as standard error; it may have been replaced since. */
static bool stderr_is_journal(void) {
        const char *text = getenv("JOURNAL_STREAM");
        uintmax_t device, inode;
        struct stat st;

        return text && sscanf(text, "%" SCNuMAX ":%" SCNuMAX, &device, &inode) == 2 &&
                fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

int journal_new(struct journal **ret, bool verbose) {
        struct journal *journal;
        int r;

        journal = calloc(1, sizeof(*journal));
        if (!journal)
                return -ENOMEM;

        journal->verbose = verbose;
        journal->native = stderr_is_journal();
        r = journal_set_identity(journal, IDENTIFIER, LOG_MAIL);
        if (r < 0) {
                journal_free(journal);
                return r;
        }

        *ret = journal;
        return 0;
}

struct journal *journal_free(struct journal *journal) {
        if (!journal)
                return NULL;

        free(journal->statistics_identifier);
        free(journal);
        return NULL;
}

int journal_set_identity(struct journal *journal, const char *statistics_identifier, int facility) {
        char *copy = strdup(statistics_identifier);

        if (!copy)
                return -ENOMEM;

        free(journal->statistics_identifier);
        journal->statistics_identifier = copy;
        journal->facility = facility;
        return 0;
}

bool journal_is_verbose(const struct journal *journal) {
        return journal->verbose;
}

/* May a line of this kind pass? Then *ret_suppressed is how many did not since the last one. */
static bool admit(struct journal *journal, enum event event, uint64_t *ret_suppressed) {
        uint64_t now = clock_now(CLOCK_BOOTTIME);

        *ret_suppressed = 0;
        if (!kinds[event].limited)
                return true;

        if (journal->limits[event].n == 0 || now - journal->limits[event].since_us >= LIMIT_INTERVAL_US) {
                journal->limits[event].since_us = now;
                journal->limits[event].n = 0;
        }
        if (journal->limits[event].n >= LIMIT_BURST) {
                journal->limits[event].suppressed++;
                return false;
        }

        journal->limits[event].n++;
        *ret_suppressed = journal->limits[event].suppressed;
        journal->limits[event].suppressed = 0;
        return true;
}

struct fields {
        struct iovec iov[FIELDS_MAX];
        int n;
        char text[FIELDS_MAX][FIELD_MAX_BYTES];
};

static void _printf_(2, 3) add_field(struct fields *fields, const char *format, ...) {
        char *text = fields->text[fields->n];
        va_list ap;
        int size;

        va_start(ap, format);
        size = vsnprintf(text, FIELD_MAX_BYTES, format, ap);
        va_end(ap);
        if (size > 0)
                fields->iov[fields->n++] =
                        (struct iovec){ text, MIN((size_t) size, (size_t) FIELD_MAX_BYTES - 1) };
}

static void send_fields(const struct journal *journal, enum event event,
        const struct journal_subject *subject, const struct journal_place *place, const char *message) {
        struct fields fields = {};

        add_field(&fields, "%s", kinds[event].message_id);
        add_field(&fields, "PRIORITY=%i", kinds[event].priority);
        add_field(&fields, "SYSLOG_FACILITY=%i", LOG_FAC(journal->facility));
        add_field(&fields, "SYSLOG_IDENTIFIER=%s",
                event == EVENT_STATISTICS ? journal->statistics_identifier : IDENTIFIER);
        add_field(&fields, "CODE_FILE=%s", place->file);
        add_field(&fields, "CODE_LINE=%i", place->line);
        add_field(&fields, "CODE_FUNC=%s", place->function);
        if (subject && subject->dialect) {
                add_field(&fields, "SCACHED_DIALECT=%s", subject->dialect);
                add_field(&fields, "SCACHED_AGENT_PID=%" PRIdMAX, (intmax_t) subject->pid);
                add_field(&fields, "SCACHED_AGENT_UID=%" PRIuMAX, (uintmax_t) subject->uid);
        }
        if (subject && subject->label.data)
                add_field(&fields, "SCACHED_LABEL=%.*s",
                        (int) MIN(subject->label.size, (size_t) FIELD_MAX_BYTES), subject->label.data);
        fields.iov[fields.n++] = (struct iovec){ (char *) message, strlen(message) };

        (void) sd_journal_sendv(fields.iov, fields.n);
}

/* For people, or for a log that knows no priorities. */
static void print(enum event event, const char *message) {
        int priority = kinds[event].priority;
        const char *severity = priority <= LOG_ERR ? "error: " : priority <= LOG_WARNING ? "warning: " : "";

        (void) dprintf(STDERR_FILENO, IDENTIFIER ": %s%s\n", severity, message);
}

void journal_write(struct journal *journal, enum event event, const struct journal_subject *subject,
        struct journal_place place, const char *format, ...) {
        char line[LINE_MAX_BYTES] = "MESSAGE=";
        char *message = line + strlen(line);
        uint64_t suppressed;
        size_t size;
        va_list ap;

        if ((event == EVENT_TRACE && !journal->verbose) || !admit(journal, event, &suppressed))
                return;

        va_start(ap, format);
        (void) vsnprintf(message, sizeof(line) - (size_t) (message - line), format, ap);
        va_end(ap);

        size = strlen(line);
        if (suppressed > 0)
                (void) snprintf(line + size, sizeof(line) - size, " (%" PRIu64 " similar lines suppressed)",
                        suppressed);

        if (journal->native)
                send_fields(journal, event, subject, &place, line);
        else
                print(event, message);
}
