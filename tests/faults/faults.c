/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* faults: makes one call of a running daemon fail. Loaded with LD_PRELOAD; a test arms it through a shared file. */

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
#include <unistd.h>

/* As tests/agent/test_faults.py writes and reads it. The call with this name fails once, after `countdown` of them have
 * been let through. */
struct plan {
        uint32_t armed;
        uint32_t countdown;
        int32_t error;
        uint32_t fired;
        char name[32];
};

static struct plan *plan;

static __attribute__((constructor)) void map_plan(void) {
        const char *path = getenv("FAULTS");
        int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

        if (fd < 0)
                return;
        plan = mmap(NULL, sizeof(*plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (plan == MAP_FAILED)
                plan = NULL;
        (void) close(fd);
}

/* Is it this call's turn? */
static int fails(const char *name) {
        if (!plan || !plan->armed || strcmp(plan->name, name) != 0)
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

INTERPOSE(ssize_t, -1, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags))
INTERPOSE(ssize_t, -1, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
INTERPOSE(ssize_t, -1, recv, (int fd, void *p, size_t n, int flags), (fd, p, n, flags))
INTERPOSE(ssize_t, -1, send, (int fd, const void *p, size_t n, int flags), (fd, p, n, flags))
INTERPOSE(int, -1, accept4, (int fd, struct sockaddr *a, socklen_t *n, int flags), (fd, a, n, flags))
INTERPOSE(int, -1, epoll_ctl, (int e, int op, int fd, struct epoll_event *v), (e, op, fd, v))
INTERPOSE(int, -1, epoll_wait, (int e, struct epoll_event *v, int n, int t), (e, v, n, t))
INTERPOSE(int, -1, getsockopt, (int fd, int l, int o, void *p, socklen_t *n), (fd, l, o, p, n))
INTERPOSE(int, -1, setsockopt, (int fd, int l, int o, const void *p, socklen_t n), (fd, l, o, p, n))

/* A descriptor whose close(2) fails is closed all the same. */
int close(int fd) {
        static __typeof__(&close) real;
        int r;

        if (!real)
                real = REAL(close);
        r = real(fd);
        return r >= 0 && fails("close") ? -1 : r;
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
