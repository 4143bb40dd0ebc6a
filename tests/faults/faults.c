/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* faults: makes one call of a running daemon fail, or one kind of call slow. Loaded with LD_PRELOAD; a test arms it through a
 * shared file. */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* As tests/agent/faults.py writes and reads it. The call with this name fails once, after `countdown` of them have been let
 * through; or, with a delay, each call with this name that the serving thread makes on a descriptor of somebody else's waits so
 * long first. */
struct plan {
        uint32_t armed;
        uint32_t countdown;
        int32_t error;
        uint32_t fired;
        char name[32];
        uint32_t delay_us;
};

static struct plan *plan;

/* The descriptors of somebody else's: those that came from outside, with a message, from the service manager, or as an agent
 * that was accepted. By number is what was there then; a number may have become another descriptor's. */
#define DESCRIPTORS_MAX 65536

enum origin {
        ORIGIN_OWN,
        ORIGIN_AGENT,  /* our end of its connection: only what is in its queue is somebody else's */
        ORIGIN_PASSED, /* whoever has passed it may have kept a copy */
};

static struct {
        ino_t inode;
        enum origin origin;
} foreign[DESCRIPTORS_MAX];

static pid_t serving_pid;

/* Looked up before there is a worker: it has not enough of a thread for that. */
static __typeof__(&syscall) real_syscall;

static void note_foreign(int fd, enum origin origin) {
        struct stat st;

        if (fd < 0 || fd >= DESCRIPTORS_MAX || fstat(fd, &st) < 0)
                return;
        foreign[fd].inode = st.st_ino;
        foreign[fd].origin = origin;
}

static enum origin origin_of(int fd) {
        struct stat st;

        if (fd < 0 || fd >= DESCRIPTORS_MAX || foreign[fd].origin == ORIGIN_OWN || fstat(fd, &st) < 0 ||
                st.st_ino != foreign[fd].inode)
                return ORIGIN_OWN;
        return foreign[fd].origin;
}

static void note_received(const struct msghdr *message) {
        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR((struct msghdr *) message, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
                        note_foreign(fd, ORIGIN_PASSED);
                }
        }
}

/* What the service manager has kept for us: connections, not listening sockets. */
static void note_stored(void) {
        for (int fd = 3; fd < DESCRIPTORS_MAX; fd++) {
                int listens = 0;
                socklen_t size = sizeof(listens);

                if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && !listens)
                        note_foreign(fd, ORIGIN_PASSED);
                else if (errno == EBADF)
                        return;
        }
}

static __attribute__((constructor)) void map_plan(void) {
        const char *path = getenv("FAULTS");
        int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

        real_syscall = (__typeof__(&syscall)) dlsym(RTLD_NEXT, "syscall");
        if (fd < 0)
                return;
        plan = mmap(NULL, sizeof(*plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (plan == MAP_FAILED)
                plan = NULL;
        (void) close(fd);

        serving_pid = getpid();
        if (plan)
                note_stored();
}

/* Make the call wait if it is to, and the serving thread makes it on what is somebody else's. Only a close needs no more than an
 * agent's socket, whose queue goes with it. */
static void delay(const char *name, int fd) {
        struct timespec pause;
        enum origin origin;
        int error = errno;

        if (!plan || plan->delay_us == 0 || !plan->armed || strcmp(plan->name, name) != 0 ||
                getpid() != serving_pid || gettid() != serving_pid)
                return;
        origin = origin_of(fd);
        if (origin == ORIGIN_PASSED || (origin == ORIGIN_AGENT && strcmp(name, "close") == 0)) {
                pause = (struct timespec){ plan->delay_us / 1000000, plan->delay_us % 1000000 * 1000 };
                (void) nanosleep(&pause, NULL);
                plan->fired++;
        }
        errno = error;
}

/* Is it this call's turn? */
static int fails(const char *name) {
        if (!plan || !plan->armed || plan->delay_us > 0 || strcmp(plan->name, name) != 0)
                return 0;
        if (plan->countdown > 0) {
                plan->countdown--;
                return 0;
        }

        plan->armed = 0;
        plan->fired = 1;
        errno = plan->error;
        return 1;
}

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

#define INTERPOSE(type, failure, name, parameters, arguments)     \
        type name parameters;                                     \
        type name parameters {                                    \
                static __typeof__(&name) real;                    \
                if (!real)                                        \
                        real = REAL(name);                        \
                return fails(#name) ? (failure) : real arguments; \
        }

/* Those that may have to wait for a lock of the socket's, or for what its queue holds. */
#define INTERPOSE_SLOW(type, name, parameters, arguments)  \
        type name parameters;                              \
        type name parameters {                             \
                static __typeof__(&name) real;             \
                if (!real)                                 \
                        real = REAL(name);                 \
                delay(#name, fd);                          \
                return fails(#name) ? -1 : real arguments; \
        }

INTERPOSE_SLOW(ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
INTERPOSE_SLOW(ssize_t, recv, (int fd, void *p, size_t n, int flags), (fd, p, n, flags))
INTERPOSE_SLOW(ssize_t, send, (int fd, const void *p, size_t n, int flags), (fd, p, n, flags))
INTERPOSE_SLOW(ssize_t, sendto,
        (int fd, const void *p, size_t n, int flags, const struct sockaddr *a, socklen_t size),
        (fd, p, n, flags, a, size))
INTERPOSE_SLOW(ssize_t, read, (int fd, void *p, size_t n), (fd, p, n))
INTERPOSE_SLOW(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n))
INTERPOSE_SLOW(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
INTERPOSE_SLOW(int, getsockopt, (int fd, int l, int o, void *p, socklen_t *n), (fd, l, o, p, n))
INTERPOSE_SLOW(int, shutdown, (int fd, int how), (fd, how))
INTERPOSE_SLOW(int, setsockopt, (int fd, int l, int o, const void *p, socklen_t n), (fd, l, o, p, n))
INTERPOSE(int, -1, epoll_wait, (int e, struct epoll_event *v, int n, int t), (e, v, n, t))

ssize_t recvmsg(int fd, struct msghdr *m, int flags) {
        static __typeof__(&recvmsg) real;
        ssize_t n;

        if (!real)
                real = REAL(recvmsg);
        delay("recvmsg", fd);
        if (fails("recvmsg"))
                return -1;
        n = real(fd, m, flags);
        if (n >= 0 && plan)
                note_received(m);
        return n;
}

int accept4(int fd, struct sockaddr *a, socklen_t *n, int flags) {
        static __typeof__(&accept4) real;
        int agent;

        if (!real)
                real = REAL(accept4);
        if (fails("accept4"))
                return -1;
        agent = real(fd, a, n, flags);
        if (plan)
                note_foreign(agent, ORIGIN_AGENT);
        return agent;
}

/* Taking a descriptor out of a set needs nothing that could be missing (epoll_ctl(2)). */
int epoll_ctl(int e, int op, int fd, struct epoll_event *event) {
        static __typeof__(&epoll_ctl) real;

        if (!real)
                real = REAL(epoll_ctl);
        return op != EPOLL_CTL_DEL && fails("epoll_ctl") ? -1 : real(e, op, fd, event);
}

/* A descriptor whose close(2) fails is closed all the same. */
int close(int fd) {
        static __typeof__(&close) real;
        int r;

        if (!real)
                real = REAL(close);
        delay("close", fd);
        r = real(fd);
        return r >= 0 && fails("close") ? -1 : r;
}

/* Workers make their calls with this one. */
long syscall(long number, ...) {
        static const struct {
                long number;
                const char *name;
        } names[] = {
                { SYS_close, "close" },
                { SYS_recvfrom, "recv" },
                { SYS_sendto, "send" },
                { SYS_setsockopt, "setsockopt" },
        };
        const char *name = "";
        long a[6], r;
        va_list ap;

        va_start(ap, number);
        for (size_t i = 0; i < 6; i++)
                a[i] = va_arg(ap, long);
        va_end(ap);
        for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
                if (names[i].number == number)
                        name = names[i].name;

        delay(name, (int) a[0]);
        if (number != SYS_close && fails(name))
                return -1;
        r = real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        return number == SYS_close && r >= 0 && fails(name) ? -1 : r;
}

/* The daemon's requests all carry one pointer. */
int ioctl(int fd, unsigned long request, ...) {
        static __typeof__(&ioctl) real;
        va_list ap;
        void *argument;

        if (!real)
                real = REAL(ioctl);
        va_start(ap, request);
        argument = va_arg(ap, void *);
        va_end(ap);
        delay("ioctl", fd);
        return fails("ioctl") ? -1 : real(fd, request, argument);
}

/* Allocations only of the daemon itself: the dynamic loader's and libc's own do not come through here. Under a sanitizer
 * the allocator is the sanitizer's, and stays so. */
#ifdef FAULTS_IN_ALLOCATIONS
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n) {
        return fails("malloc") ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size) {
        return fails("calloc") ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n) {
        return fails("realloc") ? NULL : __libc_realloc(p, n);
}

void *reallocarray(void *p, size_t n, size_t size) {
        size_t bytes;

        if (fails("realloc") || __builtin_mul_overflow(n, size, &bytes))
                return NULL;
        return __libc_realloc(p, bytes);
}
#endif
