/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/worker.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#define IS_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define IS_SANITIZED 0
#endif

/* Where memory is not shared, each worker gets a copy: that takes longer, and is right all the same. Sanitizers know nothing of
 * threads that they have not seen begin, and x86 with 32 bits has no thread pointer that clone(2) takes. */
#if IS_SANITIZED || defined(__i386__)
#define SHARES_MEMORY 0
#elif defined(__x86_64__)
#define SHARES_MEMORY 1
#define THREAD_POINTER() \
        ((char *) pthread_self()) /* gcc before 11 claims to have the builtin here, and fails on it */
#elif __has_builtin(__builtin_thread_pointer)
#define SHARES_MEMORY    1
#define THREAD_POINTER() ((char *) __builtin_thread_pointer())
#else
#define SHARES_MEMORY 0
#endif

#define WORKER_NAME "(sc-close)"

/* When a job has taken so long, what lingers is ended. A timer that is due before the kernel's next tick costs far more than one that
 * is not, and hardly any job needs it. */
#define LINGER_FIRST_USEC 10000
#define LINGER_USEC       1000

/* How much of an answer to a farewell is read, in calls of ANSWER_MAX bytes. */
#define ANSWER_MAX   4096
#define ANSWER_CALLS 16

#define STACK_SIZE ((size_t) 64 * 1024)

/* Below and above a thread pointer, more than the C library has there for its own threads. */
#define THREAD_SIZE ((size_t) 64 * 1024)

struct workplace {
        struct job job;
        pid_t parent;
        char stack[STACK_SIZE] __attribute__((aligned(64)));
        char thread[2 * THREAD_SIZE] __attribute__((aligned(64)));
};

struct workplace *workplaces_new(size_t n) {
        void *places = mmap(NULL, n * sizeof(struct workplace), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        return places == MAP_FAILED ? NULL : places;
}

void workplaces_free(struct workplace *places, size_t n) {
        if (places)
                (void) munmap(places, n * sizeof(struct workplace));
}

struct job *workplace_job(struct workplace *places, size_t i) {
        return &places[i].job;
}

bool worker_is_possible(void) {
        return !RUNNING_ON_VALGRIND;
}

/* A worker has no thread of the C library's: only system calls and errno work in it. So these calls go past all code around them, in
 * the C library or in a library loaded before it. */

static long close_it(int fd) {
        return syscall(SYS_close, fd);
}

static long receive(int fd, void *data, size_t size, int flags) {
        return syscall(SYS_recvfrom, fd, data, size, flags | MSG_DONTWAIT, NULL, NULL);
}

static void turn_linger_off(int fd) {
        static const struct linger off = {};

        (void) syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
}

/* Who goes by the credentials of a sender could take a farewell for the daemon's own word: journald does on its stream sockets.
 * Such services listen under an absolute or an abstract name, Postfix's tlsproxy(8) under a relative one. */
static bool may_hear(int fd) {
        struct sockaddr_un address = {};
        socklen_t size = sizeof(address);

        if (syscall(SYS_getpeername, fd, &address, &size) < 0)
                return false;

        return address.sun_family != AF_UNIX || size <= offsetof(struct sockaddr_un, sun_path) ||
                (address.sun_path[0] != '/' && address.sun_path[0] != '\0');
}

/* A peer that has hung up or said goodbye itself gets none. */
static bool say(int fd, const char *farewell, size_t size) {
        char byte;

        turn_linger_off(fd);
        if (!may_hear(fd) || receive(fd, &byte, 1, MSG_PEEK) >= 0 || errno != EAGAIN)
                return false;

        return syscall(SYS_sendto, fd, farewell, size, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0) == (long) size;
}

static void drain(int fd) {
        char answer[ANSWER_MAX];

        for (unsigned i = 0; i < ANSWER_CALLS && receive(fd, answer, sizeof(answer), 0) > 0; i++)
                ;
}

void worker_do(struct job *job) {
        const char *farewell = job->farewells;

        for (uint32_t i = 0; i < job->n_tasks; i++) {
                struct task *task = &job->tasks[i];

                if (task->kind == TASK_DRAIN)
                        drain(task->fd);
                else if (task->kind == TASK_KEEP)
                        turn_linger_off(task->fd);
                else if (task->farewell_size > 0) {
                        task->is_said = say(task->fd, farewell, task->farewell_size);
                        farewell += task->farewell_size;
                }

                /* What is closed is never closed twice: if we die in here, this one counts as done. */
                __atomic_store_n(&job->n_done, i + 1, __ATOMIC_RELEASE);
                if (task->kind != TASK_TELL && (task->kind != TASK_SAY || !task->is_said))
                        (void) close_it(task->fd);
        }
}

void worker_set_name(const char *name, char former[WORKER_NAME_SIZE]) {
        memset(former, 0, WORKER_NAME_SIZE);
        (void) prctl(PR_GET_NAME, former);
        (void) prctl(PR_SET_NAME, name);
}

static void on_alarm(_unused_ int signal_number) {
}

void worker_end_lingers(unsigned first_usec) {
        static const struct sigaction action = { .sa_handler = on_alarm };
        const struct itimerval alarms = { { 0, first_usec > 0 ? LINGER_USEC : 0 }, { 0, first_usec } };

        (void) sigaction(SIGALRM, &action, NULL);
        (void) setitimer(ITIMER_REAL, &alarms, NULL);
}

static int work(void *userdata) {
        struct workplace *place = userdata;
        sigset_t all;

        /* The parent's handlers and mask are for the parent alone. */
        (void) sigfillset(&all);
        (void) sigdelset(&all, SIGALRM);
        (void) sigprocmask(SIG_SETMASK, &all, NULL);
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != place->parent)
                return 0;

        worker_end_lingers(LINGER_FIRST_USEC);
        worker_do(&place->job);
        return 0;
}

#if SHARES_MEMORY
/* Give a worker a thread pointer of its own: with ours it would write our errno. It uses nothing else of a thread, but on some
 * machines a thread pointer must point to itself. Returns NULL if errno is too far from there. */
static void *thread_of(struct workplace *place) {
        ptrdiff_t distance = (char *) &errno - THREAD_POINTER();
        void **thread = (void **) (place->thread + THREAD_SIZE);

        *thread = thread;
        return distance > -(ptrdiff_t) THREAD_SIZE && distance < (ptrdiff_t) THREAD_SIZE ? thread : NULL;
}
#define SHARING (CLONE_VM | CLONE_SETTLS)
#else
static void *thread_of(_unused_ struct workplace *place) {
        return NULL;
}
#define SHARING 0
#endif

static pid_t clone_worker(struct workplace *place, int sharing, void *thread) {
        char ours[WORKER_NAME_SIZE], theirs[WORKER_NAME_SIZE];
        pid_t pid;

        worker_set_name(WORKER_NAME, ours);
        pid = clone(
                work, place->stack + STACK_SIZE, CLONE_FILES | SIGCHLD | sharing, place, NULL, thread, NULL);
        if (pid < 0)
                pid = -errno;
        worker_set_name(ours, theirs);
        return pid;
}

pid_t worker_start(struct workplace *places, size_t i) {
        struct workplace *place = &places[i];
        void *thread = thread_of(place);
        int sharing = thread ? SHARING : 0;
        pid_t pid;

        place->parent = getpid();
        pid = clone_worker(place, sharing, thread);
        /* Some C libraries lend no memory without a thread of their own. */
        if (pid == -EINVAL && sharing != 0)
                pid = clone_worker(place, 0, NULL);
        return pid;
}
