/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/disposal.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "custody/worker.h"
#include "daemon/timer.h"

/* How long a few descriptors wait for more to make a batch. */
#define GATHER_US (UINT64_C(10) * USEC_PER_MSEC)

/* Where no worker can be started, it is tried again after this time. */
#define RETRY_US USEC_PER_SEC

/* The journal mentions a close that takes longer than this. */
#define STUCK_US (UINT64_C(10) * USEC_PER_SEC)

/* At the end, a batch that takes longer than this is left behind. */
#define PATIENCE_US (UINT64_C(50) * USEC_PER_MSEC)

#define BOUND_MIN UINT64_C(64)

/* The last place is for our own jobs; no worker is ever at it. */
#define PLACES    (DISPOSAL_WORKERS_MAX + 1)
#define OUR_PLACE DISPOSAL_WORKERS_MAX

/* The batch of a worker, whose place has the same number. */
struct batch {
        struct queue *queue; /* NULL: there is none */
        pid_t worker;
        uint64_t since_us;
        bool is_told; /* that it takes long */
};

struct disposal {
        struct loop *loop;
        struct journal *journal;
        struct queues queues;
        struct workplace *places;
        struct batch batches[DISPOSAL_WORKERS_MAX];
        unsigned n_batches, n_batches_max; /* 0: everything is done in place */
        int ended_fd;                      /* readable when a worker has ended */
        disposal_said_fn said_fn;
        void *said_userdata;
        size_t n_waiting;
        uint64_t room;
        uint64_t progress;
        struct loop_timer start_timer; /* for the next batches */
        struct loop_timer look_timer;  /* whether one takes long */
        bool is_urgent;                /* start all batches in this round */
        bool lacks_worker;
};

static bool is_in_place(const struct disposal *disposal) {
        return disposal->n_batches_max == 0;
}

/* Make a job of the first entries of a queue. Returns their number, at least one. */
static uint32_t fill(struct job *job, const struct queue_entry entries[], size_t n, bool in_place) {
        size_t n_bytes = 0;
        uint32_t i;

        for (i = 0; i < MIN(n, (size_t) JOB_MAX); i++) {
                const struct queue_entry *entry = &entries[i];
                struct task task = { .fd = entry->fd, .kind = entry->kind };
                struct slice farewell = {};

                if (entry->connection)
                        farewell = connection_farewell(entry->connection);
                if (farewell.size > JOB_BYTES_MAX) {
                        farewell.size = 0;
                        task.kind = TASK_CLOSE;
                }
                if (farewell.size > JOB_BYTES_MAX - n_bytes)
                        break;
                if (farewell.size > 0)
                        memcpy(job->farewells + n_bytes, farewell.data, farewell.size);
                task.farewell_size = (uint32_t) farewell.size;
                n_bytes += farewell.size;

                /* Here no signal would end the wait for a peer. */
                if (in_place && task.kind == TASK_CLOSE)
                        task.kind = TASK_KEEP;
                job->tasks[i] = task;
        }

        job->n_tasks = i;
        job->n_done = 0;
        return i;
}

static void told(struct disposal *disposal, struct connection *connection, const struct task *task) {
        bool is_open = task->is_said && task->kind == TASK_SAY;

        if (!connection)
                return;

        if (disposal->said_fn) {
                disposal->said_fn(disposal->said_userdata, connection, task->is_said, is_open);
                return;
        }

        if (is_open)
                disposal_close_told(disposal, connection->uid, task->fd);
        connection_free(connection);
}

/* A queue can have its next batch, now or in a while. The loop's timeout is no place for that: epoll_wait(2) would set a timer
 * each time. */
static void arrange(struct disposal *disposal, const struct queue *queue) {
        if (queue->n >= JOB_MAX || is_in_place(disposal))
                disposal->is_urgent = true;
        else if (!loop_timer_is_set(&disposal->start_timer))
                loop_timer_set(&disposal->start_timer, usec_add(loop_now(disposal->loop), GATHER_US));
}

static void on_start_timer(void *userdata) {
        disposal_hurry(userdata);
}

/* A batch is done, or its worker has died: then another one gets the rest. */
static void end_batch(struct disposal *disposal, unsigned i) {
        struct queue *queue = STEAL(disposal->batches[i].queue);
        const struct job *job = workplace_job(disposal->places, i);
        uint32_t n_done = job->n_done;

        disposal->n_batches--;
        disposal->n_waiting -= n_done;
        disposal->progress++;
        for (uint32_t j = 0; j < n_done; j++)
                told(disposal, STEAL(queue_at(queue, j)->connection), &job->tasks[j]);

        /* The queues that wait for a worker have waited long enough. */
        disposal->is_urgent = disposal->is_urgent || disposal->lacks_worker;
        if (queue->n > n_done)
                arrange(disposal, queue);
        queues_take_back(&disposal->queues, queue, n_done);
}

/* Give a batch of a queue to a worker. Returns false if there is none for it. */
static bool start_batch(struct disposal *disposal, struct queue *queue) {
        struct batch *batch = disposal->batches;
        pid_t worker = 0;
        unsigned i;
        uint32_t n;

        if (disposal->n_batches >= MAX(disposal->n_batches_max, 1U))
                return false;

        while (batch->queue)
                batch++;
        i = (unsigned) (batch - disposal->batches);
        n = fill(workplace_job(disposal->places, i), queue_at(queue, 0), queue->n, is_in_place(disposal));
        if (is_in_place(disposal))
                worker_do(workplace_job(disposal->places, i));
        else
                worker = worker_start(disposal->places, i);
        if (worker < 0) {
                loop_timer_set(&disposal->start_timer, usec_add(clock_now(CLOCK_BOOTTIME), RETRY_US));
                return false;
        }

        *batch = (struct batch){ queue, worker, clock_now(CLOCK_BOOTTIME), false };
        queues_lend(&disposal->queues, queue, n);
        disposal->n_batches++;
        if (is_in_place(disposal))
                end_batch(disposal, i);
        else if (!loop_timer_is_set(&disposal->look_timer))
                loop_timer_set(&disposal->look_timer, usec_add(batch->since_us, STUCK_US));
        return true;
}

static void do_in_place(struct disposal *disposal, const struct queue_entry *entry) {
        struct job *job = workplace_job(disposal->places, OUR_PLACE);

        (void) fill(job, entry, 1, true);
        worker_do(job);
        told(disposal, entry->connection, &job->tasks[0]);
}

static void add(
        struct disposal *disposal, uid_t uid, enum disposal_origin origin, const struct queue_entry *entry) {
        struct queue *queue = queues_add(&disposal->queues, uid, origin, entry);

        if (!queue) {
                /* Without memory, better that it may wait than that it stays open for ever. */
                do_in_place(disposal, entry);
                return;
        }

        disposal->n_waiting++;
        if (queue->n_with_worker == 0)
                arrange(disposal, queue);
}

void disposal_close(struct disposal *disposal, uid_t uid, enum disposal_origin origin, int fd) {
        if (fd >= 0)
                add(disposal, uid, origin, &(struct queue_entry){ .fd = fd, .kind = TASK_CLOSE });
}

void disposal_close_kept(struct disposal *disposal, uid_t uid, int fd) {
        add(disposal, uid, DISPOSAL_PASSED, &(struct queue_entry){ .fd = fd, .kind = TASK_KEEP });
}

void disposal_close_told(struct disposal *disposal, uid_t uid, int fd) {
        add(disposal, uid, DISPOSAL_PASSED, &(struct queue_entry){ .fd = fd, .kind = TASK_DRAIN });
}

void disposal_say(struct disposal *disposal, struct connection *connection, bool time) {
        add(disposal, connection->uid, DISPOSAL_PASSED,
                &(struct queue_entry){
                        .fd = connection->fd,
                        .kind = time ? TASK_SAY : TASK_PART,
                        .connection = connection,
                });
}

void disposal_hurry(struct disposal *disposal) {
        disposal->is_urgent = true;
}

void disposal_on_said(struct disposal *disposal, disposal_said_fn fn, void *userdata) {
        disposal->said_fn = fn;
        disposal->said_userdata = userdata;
}

static void end_batch_of(struct disposal *disposal, pid_t worker) {
        for (unsigned i = 0; i < DISPOSAL_WORKERS_MAX; i++)
                if (disposal->batches[i].queue && disposal->batches[i].worker == worker) {
                        end_batch(disposal, i);
                        return;
                }
}

/* Workers have ended: the kernel says it once for all of them. */
static void on_ready(void *userdata, _unused_ void *object, _unused_ uint32_t events) {
        struct disposal *disposal = userdata;
        struct signalfd_siginfo info;
        pid_t pid;

        if (read(disposal->ended_fd, &info, sizeof(info)) < 0)
                return;
        while (disposal->n_batches > 0 && (pid = waitpid(-1, NULL, WNOHANG)) > 0)
                end_batch_of(disposal, pid);
}

/* Mention each batch that takes long, once. */
static void on_look_timer(void *userdata) {
        struct disposal *disposal = userdata;
        uint64_t now_us = clock_now(CLOCK_BOOTTIME), next_us = USEC_INFINITY;

        for (unsigned i = 0; i < DISPOSAL_WORKERS_MAX; i++) {
                struct batch *batch = &disposal->batches[i];
                uint64_t stuck_at_us = usec_add(batch->since_us, STUCK_US);
                struct journal_subject subject = {};

                if (!batch->queue || batch->is_told)
                        continue;
                if (now_us < stuck_at_us) {
                        next_us = MIN(next_us, stuck_at_us);
                        continue;
                }

                batch->is_told = true;
                subject.uid = batch->queue->uid;
                journal_say(disposal->journal, CLOSE_STUCK, &subject,
                        "A descriptor that user %u passed has been closing for %u s, in process %i. "
                        "Descriptors of this user that wait behind it: %zu.",
                        batch->queue->uid, (unsigned) (STUCK_US / USEC_PER_SEC), (int) batch->worker,
                        batch->queue->n - 1);
        }

        loop_timer_set(&disposal->look_timer, next_us);
}

void disposal_work(struct disposal *disposal) {
        struct queue *queue;

        if (!disposal->is_urgent)
                return;

        disposal->is_urgent = false;
        while ((queue = TAILQ_FIRST(&disposal->queues.by_turn)) && start_batch(disposal, queue))
                ;
        disposal->lacks_worker = queue != NULL;
}

/* Until when batches of a queue, or of all (NULL), have to be waited for, 0 if there are none. */
static uint64_t patience_ends(const struct disposal *disposal, const struct queue *queue) {
        uint64_t since_us = 0;

        for (unsigned i = 0; i < DISPOSAL_WORKERS_MAX; i++) {
                const struct batch *batch = &disposal->batches[i];

                if (batch->queue && (!queue || batch->queue == queue))
                        since_us = MAX(since_us, batch->since_us);
        }
        return since_us > 0 ? usec_add(since_us, PATIENCE_US) : 0;
}

/* Wait for the end of a batch until patience with a queue, or with all (NULL), ends. Returns false then. */
static bool wait_for_end(struct disposal *disposal, const struct queue *queue) {
        struct pollfd ended = { disposal->ended_fd, POLLIN, 0 };
        uint64_t now_us = clock_now(CLOCK_BOOTTIME), end_us = patience_ends(disposal, queue);

        /* What has ended meanwhile is noticed even where patience has ended, too. */
        if (poll(&ended, 1, end_us > now_us ? (int) ((end_us - now_us) / USEC_PER_MSEC) + 1 : 0) <= 0)
                return false;

        on_ready(disposal, NULL, 0);
        return true;
}

static void start_all(struct disposal *disposal) {
        disposal->is_urgent = true;
        disposal_work(disposal);
}

void disposal_settle(struct disposal *disposal) {
        do
                start_all(disposal);
        while (disposal->n_waiting > 0 && wait_for_end(disposal, NULL));
}

void disposal_settle_of(struct disposal *disposal, uid_t uid, enum disposal_origin origin) {
        const struct queue *queue;

        do
                start_all(disposal);
        while ((queue = queues_find(&disposal->queues, uid, origin)) && wait_for_end(disposal, queue));
}

size_t disposal_waiting(const struct disposal *disposal) {
        return disposal->n_waiting;
}

void disposal_set_room(struct disposal *disposal, uint64_t room) {
        disposal->room = room;
}

bool disposal_is_full(struct disposal *disposal, uid_t uid) {
        const struct queue *queue;
        uint64_t bound;

        if (disposal->n_waiting < BOUND_MIN)
                return false;

        bound = MAX(disposal->room / MAX(disposal->queues.n_users, (size_t) 1), BOUND_MIN);
        if (disposal->n_waiting < bound)
                return false;

        queue = queues_find(&disposal->queues, uid, DISPOSAL_PASSED);
        if (!queue || queue->n < bound)
                return false;

        /* The user's agents wait for the queue from here on. */
        disposal->is_urgent = disposal->is_urgent || queue->n_with_worker == 0;
        return true;
}

uint64_t disposal_progress(const struct disposal *disposal) {
        return disposal->progress;
}

/* Have the end of workers told by a descriptor. */
static int listen_for_ends(struct disposal *disposal) {
        sigset_t set;

        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGCHLD);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;

        disposal->ended_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (disposal->ended_fd < 0)
                return -errno;

        loop_on_ready(disposal->loop, LOOP_DISPOSAL, on_ready, disposal);
        return loop_add(disposal->loop, disposal->ended_fd, LOOP_DISPOSAL, disposal, EPOLLIN);
}

int disposal_new(struct disposal **ret, struct loop *loop, struct journal *journal, unsigned workers_max) {
        struct disposal *disposal;
        int r = 0;

        disposal = calloc(1, sizeof(*disposal));
        if (!disposal)
                return -ENOMEM;

        disposal->loop = loop;
        disposal->journal = journal;
        disposal->ended_fd = -1;
        if (worker_is_possible())
                disposal->n_batches_max = MIN(workers_max, (unsigned) DISPOSAL_WORKERS_MAX);
        queues_init(&disposal->queues);

        disposal->places = workplaces_new(PLACES);
        if (!disposal->places)
                r = -ENOMEM;
        else if (!is_in_place(disposal))
                r = listen_for_ends(disposal);
        if (r >= 0)
                r = loop_timer_init(&disposal->start_timer, loop, on_start_timer, disposal);
        if (r >= 0)
                r = loop_timer_init(&disposal->look_timer, loop, on_look_timer, disposal);
        if (r < 0) {
                disposal_free(disposal);
                return r;
        }

        *ret = disposal;
        return 0;
}

struct disposal *disposal_free(struct disposal *disposal) {
        if (!disposal)
                return NULL;

        if (disposal->places)
                disposal_settle(disposal);
        if (disposal->ended_fd >= 0) {
                loop_remove(disposal->loop, disposal->ended_fd, disposal);
                closep(&disposal->ended_fd);
        }

        loop_timer_release(&disposal->start_timer);
        loop_timer_release(&disposal->look_timer);
        queues_release(&disposal->queues);
        /* A worker that is left has our memory, too: not all that was parked shall stay in it. */
        if (disposal->n_batches > 0)
                (void) malloc_trim(0);
        else
                workplaces_free(disposal->places, PLACES);
        free(disposal);
        return NULL;
}
