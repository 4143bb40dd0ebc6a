/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "custody/worker.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
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

/* systemd does not mention processes in brackets that are left behind: they are helpers. */
#define WORKER_NAME "(sc-close)"

/* The close of a socket with SO_LINGER waits until a signal comes. During a job one comes this often. */
#define LINGER_USEC 1000

/* How much of an answer to a farewell is read, in calls of ANSWER_MAX bytes. */
#define ANSWER_MAX   4096
#define ANSWER_CALLS 16

/* The parent is ours for all of them: it is whose death they hear of, and who waits for them. */
static pid_t fork_sharing(unsigned long flags) {
        flags |= CLONE_FILES | SIGCHLD;
#if defined(__s390__) || defined(__CRIS__)
        return (pid_t) syscall(SYS_clone, NULL, flags, NULL, NULL, NULL);
#else
        return (pid_t) syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
#endif
}

static void turn_linger_off(int fd) {
        static const struct linger off = {};

        (void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
}

/* Who goes by the credentials of a sender could take a farewell for the daemon's own word: journald does on its stream sockets.
 * Such services listen under an absolute or an abstract name, Postfix's tlsproxy(8) under a relative one. */
static bool may_hear(int fd) {
        struct sockaddr_un address = {};
        socklen_t size = sizeof(address);

        if (getpeername(fd, (struct sockaddr *) &address, &size) < 0)
                return false;

        return address.sun_family != AF_UNIX || size <= offsetof(struct sockaddr_un, sun_path) ||
                (address.sun_path[0] != '/' && address.sun_path[0] != '\0');
}

/* A peer that has hung up or said goodbye itself gets none. */
static bool say(int fd, const char *farewell, size_t size) {
        char byte;

        turn_linger_off(fd);
        if (!may_hear(fd) || recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN)
                return false;

        return send(fd, farewell, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t) size;
}

static void drain(int fd) {
        char answer[ANSWER_MAX];

        for (unsigned i = 0; i < ANSWER_CALLS && recv(fd, answer, sizeof(answer), MSG_DONTWAIT) > 0; i++)
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
                if (task->kind != TASK_SAY || !task->is_said)
                        (void) close(task->fd);
        }
}

static void on_alarm(_unused_ int signal_number) {
}

/* What the parent has told its signals is for the parent alone. */
static void settle_in(pid_t parent) {
        static const struct sigaction action = { .sa_handler = on_alarm };
        sigset_t all;

        (void) sigfillset(&all);
        (void) sigdelset(&all, SIGALRM);
        (void) sigaction(SIGALRM, &action, NULL);
        (void) sigprocmask(SIG_SETMASK, &all, NULL);
        (void) prctl(PR_SET_NAME, WORKER_NAME);
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(0);
}

/* The next word for us. Ends the process when there will be none. */
static int listen_to(int channel) {
        int word;
        ssize_t n;

        do
                n = recv(channel, &word, sizeof(word), 0);
        while (n < 0 && errno == EINTR);

        if (n != sizeof(word) || word == WORKER_STOP)
                _exit(0);
        return word;
}

static void speak(int channel, int word) {
        ssize_t n;

        do
                n = send(channel, &word, sizeof(word), MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);

        /* Our end tells as much. */
        if (n < 0)
                _exit(1);
}

static void let_linger(suseconds_t usec) {
        const struct itimerval timer = { { 0, usec }, { 0, usec } };

        (void) setitimer(ITIMER_REAL, &timer, NULL);
}

static _Noreturn void work(int channel, struct job jobs[]) {
        pid_t pid = getpid();

        speak(channel, WORKER_STARTED);
        for (;;) {
                int word = listen_to(channel);

                jobs[word].worker = pid;
                let_linger(LINGER_USEC);
                worker_do(&jobs[word]);
                let_linger(0);
                speak(channel, word);
        }
}

static _Noreturn void spawn(pid_t parent, int spawning, int working, struct job jobs[]) {
        settle_in(parent);
        for (;;) {
                pid_t pid;

                (void) listen_to(spawning);
                pid = fork_sharing(CLONE_PARENT);
                if (pid == 0) {
                        settle_in(parent);
                        work(working, jobs);
                }
                if (pid < 0)
                        speak(working, WORKER_FAILED);
        }
}

pid_t worker_spawn(int spawning, int working, struct job jobs[]) {
        pid_t parent = getpid(), pid;

        if (RUNNING_ON_VALGRIND)
                return -EOPNOTSUPP;

        pid = fork_sharing(0);
        if (pid == 0)
                spawn(parent, spawning, working, jobs);
        return pid < 0 ? -errno : pid;
}
