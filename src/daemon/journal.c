/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/journal.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/datagram.h"

/* The journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL). */
#define JOURNAL_SOCKET "/run/systemd/journal/socket"

#define LINE_MAX_BYTES  2048
#define FIELD_MAX_BYTES 512
#define FIELDS_MAX      12

/* With syslog_name = postfix, the lines that Postfix's own cache also writes have its identifier; all others have this one,
 * because programs that read Postfix's log complain about lines that they do not know. */
#define IDENTIFIER "scached"

/* At most so many lines of each limited kind in so much time. */
#define LIMIT_BURST       10
#define LIMIT_INTERVAL_US (UINT64_C(30) * USEC_PER_SEC)

static const struct {
        const char *message_id;
        int priority;
        bool limited;
} kinds[_EVENT_MAX] = {
#define EVENT(name, id, priority, limited) [EVENT_##name] = { id, priority, limited },
        EVENTS(EVENT)
#undef EVENT
};

struct journal {
        bool verbose;
        bool native; /* standard error is the journal: send lines with fields */
        char *statistics_identifier;
        int facility;
        struct datagram datagram; /* to the journal, if `native` */
        uint64_t n_lost;          /* lines that were not written since the last written one */
        struct {
                uint64_t since_us;
                unsigned n;
                uint64_t suppressed;
        } limits[_EVENT_MAX];
};

/* JOURNAL_STREAM names the socket that the service manager passed as standard error; somebody may have replaced it since. */
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
        datagram_init(&journal->datagram, JOURNAL_SOCKET);
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

        datagram_release(&journal->datagram);
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

/* Return whether a line of this kind may be written, and how many were suppressed since the last one. */
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

/* A line in the journal's protocol. A field is NAME=VALUE and a line break. If the value has line breaks, it is NAME, a line
 * break, the size of the value in 64 bits, little-endian, the value, and a line break. */
struct fields {
        char data[FIELDS_MAX * FIELD_MAX_BYTES + LINE_MAX_BYTES];
        size_t size;
};

static void add_field(struct fields *fields, const char *name, struct slice value) {
        uint64_t size = htole64(value.size);
        char *p = fields->data + fields->size;

        if (sizeof(fields->data) - fields->size < strlen(name) + 1 + sizeof(size) + value.size + 1)
                return;

        p = mempcpy(p, name, strlen(name));
        if (memchr(value.data, '\n', value.size)) {
                *p++ = '\n';
                p = mempcpy(p, &size, sizeof(size));
        } else
                *p++ = '=';
        p = mempcpy(p, value.data, value.size);
        *p++ = '\n';
        fields->size = (size_t) (p - fields->data);
}

static void add_text(struct fields *fields, const char *name, const char *value) {
        add_field(fields, name, slice_of(value));
}

static void add_number(struct fields *fields, const char *name, intmax_t value) {
        char text[sizeof("-9223372036854775808")];

        (void) snprintf(text, sizeof(text), "%" PRIdMAX, value);
        add_text(fields, name, text);
}

static int send_fields(struct journal *journal, enum event event, const struct journal_subject *subject,
        const struct journal_place *place, const char *message) {
        struct fields fields = {};
        struct iovec iov;

        add_text(&fields, "MESSAGE", message);
        add_text(&fields, "MESSAGE_ID", kinds[event].message_id);
        add_number(&fields, "PRIORITY", kinds[event].priority);
        add_number(&fields, "SYSLOG_FACILITY", LOG_FAC(journal->facility));
        add_text(&fields, "SYSLOG_IDENTIFIER",
                event == EVENT_STATISTICS ? journal->statistics_identifier : IDENTIFIER);
        add_text(&fields, "CODE_FILE", place->file);
        add_number(&fields, "CODE_LINE", place->line);
        add_text(&fields, "CODE_FUNC", place->function);
        if (subject && subject->dialect) {
                add_text(&fields, "SCACHED_DIALECT", subject->dialect);
                add_number(&fields, "SCACHED_AGENT_PID", subject->pid);
                add_number(&fields, "SCACHED_AGENT_UID", subject->uid);
        }
        if (subject && subject->label.data)
                add_field(&fields, "SCACHED_LABEL",
                        (struct slice){
                                subject->label.data, MIN(subject->label.size, (size_t) FIELD_MAX_BYTES) });

        iov = (struct iovec){ fields.data, fields.size };
        return datagram_send(&journal->datagram, &iov, 1, NULL, 0);
}

/* Write a line as text: standard error is a terminal, or a log without priorities. */
static int print(enum event event, const char *message) {
        struct pollfd room = { STDERR_FILENO, POLLOUT, 0 };
        int priority = kinds[event].priority;
        const char *severity = priority <= LOG_ERR ? "error: " : priority <= LOG_WARNING ? "warning: " : "";
        char line[LINE_MAX_BYTES + 64];
        int n;

        n = snprintf(line, sizeof(line), IDENTIFIER ": %s%s\n", severity, message);
        /* A pipe that is ready has room for a line of this length (pipe(7), PIPE_BUF). */
        if (poll(&room, 1, 0) != 1 || !(room.revents & POLLOUT))
                return -EAGAIN;
        return write(STDERR_FILENO, line, (size_t) MAX(n, 0)) < 0 ? -errno : 0;
}

static int put(struct journal *journal, enum event event, const struct journal_subject *subject,
        const struct journal_place *place, const char *message) {
        return journal->native ? send_fields(journal, event, subject, place, message)
                               : print(event, message);
}

/* Write a line without waiting. Lines that cannot be written are counted, and the next one that can reports them. */
static void put_or_count(struct journal *journal, enum event event, const struct journal_subject *subject,
        const struct journal_place *place, const char *message) {
        if (journal->n_lost > 0) {
                const struct journal_place here = { __FILE__, __LINE__, __func__ };
                char text[LINE_MAX_BYTES];

                (void) snprintf(text, sizeof(text),
                        "%" PRIu64 " line%s not written: the journal did not read.", journal->n_lost,
                        journal->n_lost == 1 ? " was" : "s were");
                if (put(journal, EVENT_LINES_LOST, NULL, &here, text) >= 0)
                        journal->n_lost = 0;
        }

        if (journal->n_lost > 0 || put(journal, event, subject, place, message) < 0)
                journal->n_lost++;
}

void journal_write(struct journal *journal, enum event event, const struct journal_subject *subject,
        struct journal_place place, const char *format, ...) {
        char message[LINE_MAX_BYTES];
        uint64_t suppressed;
        size_t size;
        va_list ap;

        if ((event == EVENT_TRACE && !journal->verbose) || !admit(journal, event, &suppressed))
                return;

        va_start(ap, format);
        (void) vsnprintf(message, sizeof(message), format, ap);
        va_end(ap);

        size = strlen(message);
        if (suppressed > 0)
                (void) snprintf(message + size, sizeof(message) - size,
                        " (%" PRIu64 " similar lines suppressed)", suppressed);

        put_or_count(journal, event, subject, &place, message);
}
