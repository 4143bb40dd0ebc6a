/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "epochs/epochs.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "daemon/errand.h"
#include "epochs/examiner.h"

/* The most services, of all Postfix instances together. */
#define LINES_MAX 256

/* The most inquiries that wait, such as for a file system that does not answer. */
#define INQUIRIES_MAX 1024

/* Limits of one part of a drain: places and entries visited, and entries drained. */
#define DRAIN_VISITS 1024
#define DRAIN_MAX    64

/* The epochs of a service, one after the other. */
struct line {
        uint64_t name;
        uint64_t current;
        uint64_t started_us; /* start of the youngest process in the current epoch, in µs */
};

struct epochs {
        struct loop *loop;
        struct cache *cache;
        struct journal *journal;
        struct errands *errands;
        struct examiner *examiner; /* the thread uses it */
        struct line lines[LINES_MAX];
        size_t n_lines;
        size_t n_inquiries;

        bool drains_connections;
        bool drains_bindings;
        struct cache_cursor connections;
        struct cache_cursor bindings;
};

struct epoch_inquiry {
        struct errand errand;
        struct epochs *epochs;
        struct journal_subject subject;
        int fd;
        epoch_fn fn; /* NULL once nobody waits for the answer */
        void *userdata;
        char *queue;
        char *directories;
        struct examination examination;
};

static struct epoch_inquiry *inquiry_free(struct epoch_inquiry *inquiry) {
        if (inquiry) {
                free(inquiry->queue);
                free(inquiry->directories);
                free(inquiry);
        }
        return NULL;
}

int epochs_new(struct epochs **ret, struct loop *loop, struct cache *cache, struct journal *journal) {
        struct epochs *epochs;
        int r;

        epochs = calloc(1, sizeof(*epochs));
        if (!epochs)
                return -ENOMEM;

        epochs->loop = loop;
        epochs->cache = cache;
        epochs->journal = journal;
        r = examiner_new(&epochs->examiner);
        if (r >= 0)
                r = errands_new(&epochs->errands, loop);
        if (r < 0) {
                epochs_free(epochs);
                return r;
        }

        *ret = epochs;
        return 0;
}

struct epochs *epochs_free(struct epochs *epochs) {
        /* A thread that waits for a file cannot be ended before the process: leave it what it uses. */
        if (!epochs || errands_free(epochs->errands))
                return NULL;

        examiner_free(epochs->examiner);
        free(epochs);
        return NULL;
}

static void say_unknown(const struct epoch_inquiry *inquiry, const char *why) {
        journal_say(inquiry->epochs->journal, EPOCH_UNKNOWN, &inquiry->subject,
                "Agent %i of user %u finds nothing, and nothing that it parks is kept, because its "
                "configuration of Postfix is unknown: %s.",
                (int) inquiry->subject.pid, inquiry->subject.uid, why);
}

static struct line *find_line(struct epochs *epochs, uint64_t name) {
        for (size_t i = 0; i < epochs->n_lines; i++)
                if (epochs->lines[i].name == name)
                        return &epochs->lines[i];
        return NULL;
}

/* The first agent of an epoch has connected: drain the entries of older ones. */
static void begin_epoch(struct epochs *epochs, struct line *line, const struct epoch_inquiry *inquiry) {
        const struct examination *x = &inquiry->examination;

        if (line->current != 0)
                journal_say(epochs->journal, EPOCH_CHANGED, &inquiry->subject,
                        "The configuration of %s in %s has changed: draining the connections that were "
                        "parked under the previous one.",
                        x->service.text, x->directory.text);

        line->current = x->id;
        epochs->connections = epochs->bindings = (struct cache_cursor){};
        epochs->drains_connections = epochs->drains_bindings = true;
        loop_touch(epochs->loop);
}

static struct epoch judge(struct epoch_inquiry *inquiry) {
        struct epochs *epochs = inquiry->epochs;
        const struct examination *x = &inquiry->examination;
        struct line *line;

        if (x->error < 0) {
                say_unknown(inquiry, x->error == -ENOMEM ? strerror(ENOMEM) : x->problem);
                return epoch_unknown();
        }
        if (x->is_old)
                return epoch_unknown();

        line = find_line(epochs, epoch_line(x->id));
        if (!line) {
                if (epochs->n_lines == LINES_MAX) {
                        say_unknown(inquiry, "there are too many services of Postfix");
                        return epoch_unknown();
                }
                line = &epochs->lines[epochs->n_lines++];
                line->name = epoch_line(x->id);
        }

        /* All processes were compared with the same files. Of two command lines, that of the younger process is newer. */
        if (line->current != x->id) {
                if (x->started_us <= line->started_us)
                        return epoch_unknown();
                begin_epoch(epochs, line, inquiry);
        }
        line->started_us = MAX(line->started_us, x->started_us);
        return (struct epoch){ x->id, &line->current };
}

/* If an agent has ended, its pid may now be that of another process. An agent that has ended has also hung up. */
static bool has_hung_up(int fd) {
        struct pollfd end = { fd, POLLRDHUP, 0 };

        return poll(&end, 1, 0) != 0;
}

static void work(struct errand *errand) {
        struct epoch_inquiry *inquiry = CONTAINER_OF(errand, struct epoch_inquiry, errand);

        examiner_examine(inquiry->epochs->examiner, &inquiry->examination);
}

static void done(struct errand *errand) {
        struct epoch_inquiry *inquiry = CONTAINER_OF(errand, struct epoch_inquiry, errand);

        if (inquiry->fn)
                inquiry->fn(inquiry->userdata, has_hung_up(inquiry->fd) ? epoch_unknown() : judge(inquiry));
        inquiry->epochs->n_inquiries--;
        inquiry_free(inquiry);
}

int epoch_ask(struct epochs *epochs, const struct epoch_question *question, epoch_fn fn, void *userdata,
        struct epoch_inquiry **ret) {
        struct epoch_inquiry *inquiry;
        int r;

        if (epochs->n_inquiries >= INQUIRIES_MAX)
                return -EBUSY;

        inquiry = calloc(1, sizeof(*inquiry));
        if (!inquiry)
                return -ENOMEM;

        inquiry->errand.work = work;
        inquiry->errand.done = done;
        inquiry->epochs = epochs;
        inquiry->subject = question->subject;
        inquiry->fd = question->fd;
        inquiry->fn = fn;
        inquiry->userdata = userdata;
        inquiry->queue = strdup(question->queue);
        inquiry->directories = strdup(question->directories);
        inquiry->examination.pid = question->subject.pid;
        inquiry->examination.queue = inquiry->queue;
        inquiry->examination.directories = inquiry->directories;

        r = inquiry->queue && inquiry->directories ? errand_begin(epochs->errands, &inquiry->errand)
                                                   : -ENOMEM;
        if (r < 0) {
                say_unknown(inquiry,
                        r == -ENOMEM ? strerror(ENOMEM)
                                     : "the thread that reads the state of files cannot start");
                inquiry_free(inquiry);
                return r;
        }

        epochs->n_inquiries++;
        *ret = inquiry;
        return 0;
}

void epoch_forget(struct epoch_inquiry *inquiry, bool late) {
        inquiry->fn = NULL;
        if (late)
                say_unknown(inquiry, "the file system of its files does not answer");
}

struct batch {
        struct epochs *epochs;
        void *chosen[DRAIN_MAX];
        size_t n;
        bool is_full;
};

static bool is_over(struct epochs *epochs, const struct label *label) {
        uint64_t id = label->scope.epoch;
        const struct line *line = id != 0 ? find_line(epochs, epoch_line(id)) : NULL;

        return line && line->current != id;
}

static void choose(struct batch *batch, const struct label *label, void *entry) {
        if (!is_over(batch->epochs, label))
                return;

        if (batch->n < DRAIN_MAX)
                batch->chosen[batch->n++] = entry;
        else
                batch->is_full = true;
}

static void on_connection(void *userdata, struct connection *connection) {
        choose(userdata, connection->endpoint, connection);
}

static void on_binding(void *userdata, struct binding *binding) {
        choose(userdata, binding->destination, binding);
}

static bool drain_connections(struct epochs *epochs) {
        struct cache_cursor before = epochs->connections;
        struct batch batch = { .epochs = epochs };
        bool is_more;

        is_more = cache_walk_connections(
                epochs->cache, &epochs->connections, DRAIN_VISITS, on_connection, &batch);
        for (size_t i = 0; i < batch.n; i++)
                cache_let_go(epochs->cache, batch.chosen[i], DEPARTURE_OUTDATED);
        if (batch.is_full)
                epochs->connections = before;
        return is_more || batch.is_full;
}

static bool drain_bindings(struct epochs *epochs) {
        struct cache_cursor before = epochs->bindings;
        struct batch batch = { .epochs = epochs };
        bool is_more;

        is_more = cache_walk_bindings(epochs->cache, &epochs->bindings, DRAIN_VISITS, on_binding, &batch);
        for (size_t i = 0; i < batch.n; i++)
                cache_drop(epochs->cache, batch.chosen[i]);
        if (batch.is_full)
                epochs->bindings = before;
        return is_more || batch.is_full;
}

bool epochs_drain(struct epochs *epochs) {
        if (!epochs->drains_connections && !epochs->drains_bindings)
                return false;

        cache_tell_time(epochs->cache, loop_now(epochs->loop));
        epochs->drains_connections = epochs->drains_connections && drain_connections(epochs);
        epochs->drains_bindings = epochs->drains_bindings && drain_bindings(epochs);
        return epochs->drains_connections || epochs->drains_bindings;
}
