/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/disposal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "custody/worker.h"

/* How long a few descriptors wait for more to make a batch. A copy of what an agent has can wait longer: nobody notices. */
#define GATHER_US      (UINT64_C(10) * USEC_PER_MSEC)
#define GATHER_COPY_US (UINT64_C(100) * USEC_PER_MSEC)

/* Workers that have nothing to do are kept up to this number. */
#define IDLE_MAX 2

/* How often it is looked whether a worker has died while jobs take long, and another one is tried to be started. */
#define LOOK_US USEC_PER_SEC

/* What takes longer than this is left behind at the end. */
#define PATIENCE_US (UINT64_C(250) * USEC_PER_MSEC)

#define BUCKETS   64
#define ENTRIES   16 /* of a queue at first */
#define BOUND_MIN UINT64_C(64)

struct entry {
        int fd;
        uint8_t kind;                  /* enum task_kind */
        bool is_copy;                  /* somebody else has it, too */
        struct connection *connection; /* with a farewell, or NULL */
};

/* What is to be closed for a user, by origin. It lives while there is something. */
struct queue {
        LIST_ENTRY(queue) by_uid;
        TAILQ_ENTRY(queue) by_turn; /* while entries are here and no batch of it is with a worker */
        uid_t uid;
        enum disposal_origin origin;
        bool is_with_worker; /* a batch of it */
        size_t n_with_worker;
        size_t first, n, size; /* where entries begin, how many there are, room for how many there is */
        struct entry *entries; /* first come first */
};

LIST_HEAD(queue_list, queue);
TAILQ_HEAD(turn_list, queue);

/* A job that a worker has: our side of it. */
struct batch {
        struct queue *queue; /* NULL: none */
        uint64_t since_us;
        struct entry entries[JOB_MAX];
};

struct disposal {
        struct loop *loop;
        struct job *jobs; /* shared with workers; one of its own where everything is done in place */
        struct batch batches[DISPOSAL_WORKERS_MAX];
        struct queue_list buckets[BUCKETS];
        struct turn_list by_turn;
        struct queue *last; /* that was asked for: it most likely is the next one, too */
        disposal_said_fn said_fn;
        void *said_userdata;
        size_t n_waiting;
        size_t n_users; /* who have passed something of that */
        uint64_t room;
        uint64_t progress;
        uint64_t gathering_until_us;
        bool is_urgent;
        bool lacks_worker;
        /* Processes. */
        int spawning[2], working[2]; /* our end first */
        pid_t spawner;
        unsigned n_workers_max; /* 0: everything is done in place */
        unsigned n_workers, n_idle, n_batches;
        unsigned n_stopping, n_children;
        bool is_starting;       /* one more worker is */
        uint64_t starting_us;   /* since when */
        uint64_t not_before_us; /* a new process is tried again */
        uint64_t look_at_us;
};

static bool is_in_place(const struct disposal *disposal) {
        return disposal->n_workers_max == 0;
}

/* A job that no worker ever has. */
static struct job *own_job(struct disposal *disposal) {
        return &disposal->jobs[DISPOSAL_WORKERS_MAX];
}

static int start_spawner(struct disposal *disposal) {
        disposal->spawner = worker_spawn(disposal->spawning[1], disposal->working[1], disposal->jobs);
        if (disposal->spawner < 0)
                return disposal->spawner;

        disposal->n_children++;
        return 0;
}

static bool say_word(int channel, int word) {
        return send(channel, &word, sizeof(word), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(word);
}

static struct queue_list *bucket_of(struct disposal *disposal, uid_t uid) {
        return &disposal->buckets[(uid * UINT32_C(2654435761)) >> 26];
}

_Static_assert(BUCKETS == 1 << (32 - 26), "as many buckets as bucket_of() knows");

static struct queue *queue_find(struct disposal *disposal, uid_t uid, enum disposal_origin origin) {
        struct queue *queue = disposal->last;

        if (queue && queue->uid == uid && queue->origin == origin)
                return queue;

        LIST_FOREACH(queue, bucket_of(disposal, uid), by_uid)
        if (queue->uid == uid && queue->origin == origin)
                return disposal->last = queue;
        return NULL;
}

static struct queue *queue_new(struct disposal *disposal, uid_t uid, enum disposal_origin origin) {
        struct queue *queue;

        queue = calloc(1, sizeof(*queue));
        if (!queue)
                return NULL;

        queue->uid = uid;
        queue->origin = origin;
        LIST_INSERT_HEAD(bucket_of(disposal, uid), queue, by_uid);
        disposal->n_users += origin == DISPOSAL_PASSED;
        return disposal->last = queue;
}

static void queue_free(struct disposal *disposal, struct queue *queue) {
        for (size_t i = queue->first; i < queue->first + queue->n; i++)
                connection_free(queue->entries[i].connection);
        if (disposal->last == queue)
                disposal->last = NULL;
        LIST_REMOVE(queue, by_uid);
        disposal->n_users -= queue->origin == DISPOSAL_PASSED;
        free(queue->entries);
        free(queue);
}

static int queue_add(struct queue *queue, const struct entry *entry) {
        if (queue->first + queue->n == queue->size) {
                if (queue->first > queue->size / 2) {
                        memmove(queue->entries, queue->entries + queue->first,
                                queue->n * sizeof(*queue->entries));
                        queue->first = 0;
                } else {
                        size_t size = queue->size > 0 ? 2 * queue->size : ENTRIES;
                        struct entry *entries;

                        entries = reallocarray(queue->entries, size, sizeof(*entries));
                        if (!entries)
                                return -ENOMEM;
                        queue->entries = entries;
                        queue->size = size;
                }
        }

        queue->entries[queue->first + queue->n++] = *entry;
        return 0;
}

/* Make a job of the first of N entries, at least one. Returns of how many. */
static uint32_t fill(struct job *job, const struct entry entries[], size_t n, bool in_place) {
        size_t n_bytes = 0;
        uint32_t i;

        for (i = 0; i < MIN(n, (size_t) JOB_MAX); i++) {
                const struct entry *entry = &entries[i];
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
        job->worker = 0;
        return i;
}

static void add(
        struct disposal *disposal, uid_t uid, enum disposal_origin origin, const struct entry *entry);

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

/* The time for what is looked at each round and comes to some milliseconds: this clock costs a tenth of the others. */
static uint64_t coarse_now(void) {
        return clock_now(CLOCK_MONOTONIC_COARSE);
}

/* Have a batch started in a while, unless it is earlier already. */
static void gather(struct disposal *disposal, uint64_t while_us) {
        disposal->gathering_until_us = MIN(disposal->gathering_until_us, usec_add(coarse_now(), while_us));
}

/* A batch is done, or its worker has died over it. */
static void end_batch(struct disposal *disposal, unsigned i) {
        struct batch *batch = &disposal->batches[i];
        struct queue *queue = STEAL(batch->queue);
        const struct job *job = &disposal->jobs[i];

        disposal->n_batches--;
        disposal->n_waiting -= job->n_tasks;
        disposal->progress++;
        queue->is_with_worker = false;
        queue->n_with_worker = 0;
        if (queue->n > 0) {
                TAILQ_INSERT_TAIL(&disposal->by_turn, queue, by_turn);
                gather(disposal, queue->entries[queue->first].is_copy ? GATHER_COPY_US : GATHER_US);
        }
        disposal->is_urgent = disposal->is_urgent || queue->n >= JOB_MAX;

        for (uint32_t j = 0; j < job->n_done; j++)
                told(disposal, batch->entries[j].connection, &job->tasks[j]);
        for (uint32_t j = job->n_done; j < job->n_tasks; j++)
                add(disposal, queue->uid, queue->origin, &batch->entries[j]);

        if (queue->n == 0)
                queue_free(disposal, queue);
}

/* Hand a batch of a queue to a worker. Returns false if it cannot be told now. */
static bool start_batch(struct disposal *disposal, struct queue *queue) {
        struct batch *batch = disposal->batches;
        unsigned i;
        uint32_t n;

        while (batch->queue)
                batch++;
        i = (unsigned) (batch - disposal->batches);

        n = fill(&disposal->jobs[i], queue->entries + queue->first, queue->n, is_in_place(disposal));
        memcpy(batch->entries, queue->entries + queue->first, n * sizeof(*batch->entries));
        batch->queue = queue;
        batch->since_us = clock_now(CLOCK_BOOTTIME);
        TAILQ_REMOVE(&disposal->by_turn, queue, by_turn);
        queue->is_with_worker = true;
        queue->n_with_worker = n;
        queue->n -= n;
        queue->first = queue->n > 0 ? queue->first + n : 0;
        disposal->n_batches++;

        if (is_in_place(disposal)) {
                worker_do(&disposal->jobs[i]);
                end_batch(disposal, i);
                return true;
        }

        if (!say_word(disposal->working[0], (int) i)) {
                end_batch(disposal, i);
                return false;
        }

        disposal->n_idle--;
        return true;
}

static void do_in_place(struct disposal *disposal, const struct entry *entry) {
        struct job *job = own_job(disposal);

        (void) fill(job, entry, 1, true);
        worker_do(job);
        told(disposal, entry->connection, &job->tasks[0]);
}

static void add(
        struct disposal *disposal, uid_t uid, enum disposal_origin origin, const struct entry *entry) {
        struct queue *queue = queue_find(disposal, uid, origin);

        if (!queue)
                queue = queue_new(disposal, uid, origin);
        if (!queue || queue_add(queue, entry) < 0) {
                /* Without memory, better that it may wait than that it stays open for ever. */
                do_in_place(disposal, entry);
                if (queue && queue->n == 0 && !queue->is_with_worker)
                        queue_free(disposal, queue);
                return;
        }

        disposal->n_waiting++;
        if (queue->is_with_worker)
                return;
        if (queue->n == 1)
                TAILQ_INSERT_TAIL(&disposal->by_turn, queue, by_turn);
        gather(disposal, entry->is_copy ? GATHER_COPY_US : GATHER_US);
        disposal->is_urgent = disposal->is_urgent || queue->n >= JOB_MAX;
}

void disposal_close(struct disposal *disposal, uid_t uid, enum disposal_origin origin, int fd) {
        if (fd >= 0)
                add(disposal, uid, origin, &(struct entry){ .fd = fd, .kind = TASK_CLOSE });
}

void disposal_close_copy(struct disposal *disposal, uid_t uid, int fd) {
        add(disposal, uid, DISPOSAL_PASSED,
                &(struct entry){ .fd = fd, .kind = TASK_CLOSE, .is_copy = true });
}

void disposal_close_kept(struct disposal *disposal, uid_t uid, int fd) {
        add(disposal, uid, DISPOSAL_PASSED, &(struct entry){ .fd = fd, .kind = TASK_KEEP });
}

void disposal_close_told(struct disposal *disposal, uid_t uid, int fd) {
        add(disposal, uid, DISPOSAL_PASSED, &(struct entry){ .fd = fd, .kind = TASK_DRAIN });
}

void disposal_say(struct disposal *disposal, struct connection *connection, bool time) {
        add(disposal, connection->uid, DISPOSAL_PASSED,
                &(struct entry){
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

/* A child has died: because it was told to, or somebody has killed it. What its job has not come to is for another one. */
static void on_death(struct disposal *disposal, pid_t pid) {
        disposal->n_children--;
        if (pid == disposal->spawner) {
                disposal->spawner = -1;
                disposal->is_starting = false;
                return;
        }

        for (unsigned i = 0; i < DISPOSAL_WORKERS_MAX; i++)
                if (disposal->batches[i].queue && disposal->jobs[i].worker == pid) {
                        disposal->n_workers--;
                        end_batch(disposal, i);
                        return;
                }

        if (disposal->n_stopping > 0)
                disposal->n_stopping--;
        else if (disposal->is_starting)
                disposal->is_starting = false;
        else if (disposal->n_idle > 0) {
                disposal->n_workers--;
                disposal->n_idle--;
        } else if (disposal->n_workers > 0)
                disposal->n_workers--; /* it has not come to take its job, which waits for another one */
}

/* Is a job on its way to a worker that is no more? */
static bool has_unclaimed_job(const struct disposal *disposal) {
        return disposal->n_batches > disposal->n_workers - disposal->n_idle;
}

static void look_at_children(struct disposal *disposal) {
        pid_t pid;

        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
                on_death(disposal, pid);

        if (disposal->n_idle > IDLE_MAX && say_word(disposal->working[0], WORKER_STOP)) {
                disposal->n_idle--;
                disposal->n_workers--;
                disposal->n_stopping++;
        }
}

/* What a child has to say. */
static void on_word(struct disposal *disposal) {
        int word;

        if (recv(disposal->working[0], &word, sizeof(word), MSG_DONTWAIT) != sizeof(word))
                return;

        /* Whoever waits for a worker has waited long enough. */
        disposal->is_urgent = disposal->is_urgent || disposal->lacks_worker;
        switch (word) {
        case WORKER_STARTED:
                disposal->is_starting = false;
                disposal->n_workers++;
                /* With one more, as many are at work as there are jobs, unless this one has none. */
                disposal->n_idle += disposal->n_workers - disposal->n_idle > disposal->n_batches;
                return;
        case WORKER_FAILED:
                disposal->is_starting = false;
                disposal->n_children--;
                disposal->not_before_us = usec_add(clock_now(CLOCK_BOOTTIME), LOOK_US);
                return;
        default:
                disposal->n_idle++;
                end_batch(disposal, (unsigned) word);
        }
}

static void on_ready(void *userdata, _unused_ void *object, _unused_ uint32_t events) {
        on_word(userdata);
}

/* Try to get one more worker. */
static void start_worker(struct disposal *disposal) {
        uint64_t now_us;

        if (disposal->n_workers >= disposal->n_workers_max)
                return;

        /* One that has not said in this time that it is there has been lost. */
        now_us = clock_now(CLOCK_BOOTTIME);
        if (now_us < disposal->not_before_us ||
                (disposal->is_starting && now_us < usec_add(disposal->starting_us, LOOK_US)))
                return;
        if (disposal->spawner < 0 && start_spawner(disposal) < 0) {
                disposal->not_before_us = usec_add(now_us, LOOK_US);
                return;
        }
        disposal->is_starting = say_word(disposal->spawning[0], WORKER_START);
        disposal->n_children += disposal->is_starting;
        disposal->starting_us = now_us;
        if (!disposal->is_starting)
                disposal->not_before_us = usec_add(now_us, LOOK_US);
}

/* Is there a worker for a batch? If not, try to get one. */
static bool has_worker(struct disposal *disposal) {
        if (is_in_place(disposal) || disposal->n_idle > 0)
                return true;

        start_worker(disposal);
        return false;
}

uint64_t disposal_work(struct disposal *disposal) {
        uint64_t now_us;

        if (disposal->n_waiting == 0)
                return USEC_INFINITY;

        now_us = coarse_now();
        if (now_us >= disposal->look_at_us && !is_in_place(disposal)) {
                disposal->look_at_us = usec_add(now_us, LOOK_US);
                look_at_children(disposal);
                if (has_unclaimed_job(disposal))
                        start_worker(disposal);
        }

        if (!disposal->is_urgent && now_us < disposal->gathering_until_us && !is_in_place(disposal))
                return MIN(disposal->gathering_until_us - now_us, LOOK_US);

        disposal->is_urgent = false;
        disposal->gathering_until_us = USEC_INFINITY;
        while (!TAILQ_EMPTY(&disposal->by_turn) && has_worker(disposal) &&
                start_batch(disposal, TAILQ_FIRST(&disposal->by_turn)))
                ;
        disposal->lacks_worker = !TAILQ_EMPTY(&disposal->by_turn);
        if (disposal->lacks_worker)
                disposal->gathering_until_us = MIN(disposal->gathering_until_us, usec_add(now_us, LOOK_US));
        return LOOK_US;
}

/* Until when the last of what is with workers has to be waited for, 0 if nothing is. */
static uint64_t patience_ends(const struct disposal *disposal) {
        uint64_t since_us = disposal->is_starting ? disposal->starting_us : 0;

        for (unsigned i = 0; i < DISPOSAL_WORKERS_MAX; i++)
                if (disposal->batches[i].queue)
                        since_us = MAX(since_us, disposal->batches[i].since_us);
        return since_us > 0 ? usec_add(since_us, PATIENCE_US) : 0;
}

void disposal_settle(struct disposal *disposal) {
        struct pollfd channel = { disposal->working[0], POLLIN, 0 };

        for (;;) {
                uint64_t end_us, now_us;

                disposal->is_urgent = true;
                (void) disposal_work(disposal);
                if (disposal->n_waiting == 0)
                        return;

                now_us = clock_now(CLOCK_BOOTTIME);
                end_us = patience_ends(disposal);
                if (end_us <= now_us ||
                        poll(&channel, 1, (int) ((end_us - now_us) / USEC_PER_MSEC) + 1) <= 0)
                        return;
                on_word(disposal);
        }
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

        bound = MAX(disposal->room / MAX(disposal->n_users, (size_t) 1), BOUND_MIN);
        if (disposal->n_waiting < bound)
                return false;

        queue = queue_find(disposal, uid, DISPOSAL_PASSED);
        return queue && queue->n + queue->n_with_worker >= bound;
}

uint64_t disposal_progress(const struct disposal *disposal) {
        return disposal->progress;
}

static int make_channels(struct disposal *disposal) {
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, disposal->spawning) < 0 ||
                socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, disposal->working) < 0)
                return -errno;

        loop_on_ready(disposal->loop, LOOP_DISPOSAL, on_ready, disposal);
        return loop_add(disposal->loop, disposal->working[0], LOOP_DISPOSAL, disposal, EPOLLIN);
}

int disposal_new(struct disposal **ret, struct loop *loop, unsigned workers_max) {
        struct disposal *disposal;
        void *jobs;
        int r = 0;

        disposal = calloc(1, sizeof(*disposal));
        if (!disposal)
                return -ENOMEM;

        disposal->loop = loop;
        disposal->gathering_until_us = USEC_INFINITY;
        disposal->n_workers_max = MIN(workers_max, (unsigned) DISPOSAL_WORKERS_MAX);
        disposal->spawning[0] = disposal->spawning[1] = disposal->working[0] = disposal->working[1] = -1;
        TAILQ_INIT(&disposal->by_turn);

        jobs = mmap(NULL, (DISPOSAL_WORKERS_MAX + 1) * sizeof(struct job), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (jobs == MAP_FAILED)
                r = -errno;
        else
                disposal->jobs = jobs;

        if (r >= 0 && !is_in_place(disposal)) {
                r = make_channels(disposal);
                /* Where it can be done at all, it is tried again later. */
                if (r >= 0 && start_spawner(disposal) < 0 && disposal->spawner != -EAGAIN &&
                        disposal->spawner != -ENOMEM)
                        disposal->n_workers_max = 0;
        }
        if (r < 0) {
                disposal_free(disposal);
                return r;
        }

        *ret = disposal;
        return 0;
}

/* Let go of the processes. Those with nothing to do end at once; the others, and what they work on, when they can: the kernel
 * ends them with us, and then closes our descriptor table in their name, which it must not do in ours. */
static void end_children(struct disposal *disposal) {
        (void) shutdown(disposal->spawning[0], SHUT_RDWR);
        (void) shutdown(disposal->working[0], SHUT_RDWR);
        while (disposal->n_children > disposal->n_batches && waitpid(-1, NULL, 0) > 0)
                disposal->n_children--;
}

struct disposal *disposal_free(struct disposal *disposal) {
        struct queue *queue;

        if (!disposal)
                return NULL;

        if (disposal->jobs)
                disposal_settle(disposal);
        if (disposal->working[0] >= 0) {
                loop_remove(disposal->loop, disposal->working[0], disposal);
                end_children(disposal);
        }

        for (unsigned i = 0; i < DISPOSAL_WORKERS_MAX; i++)
                for (uint32_t j = 0; disposal->batches[i].queue && j < disposal->jobs[i].n_tasks; j++)
                        connection_free(disposal->batches[i].entries[j].connection);
        for (unsigned i = 0; i < BUCKETS; i++)
                while ((queue = LIST_FIRST(&disposal->buckets[i])))
                        queue_free(disposal, queue);
        for (unsigned i = 0; i < 2; i++) {
                closep(&disposal->spawning[i]);
                closep(&disposal->working[i]);
        }
        if (disposal->jobs)
                (void) munmap(disposal->jobs, (DISPOSAL_WORKERS_MAX + 1) * sizeof(struct job));
        free(disposal);
        return NULL;
}
