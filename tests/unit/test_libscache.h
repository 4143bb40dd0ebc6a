/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests: a service that does as the test says, and a handle of libscache that uses it, in one thread */
#pragma once

/* The form for event loops makes each step visible; the functions that wait are the same code, with poll(2) around it. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "libscache/scache.h"

#define GREETING        "protocol\0connection_cache_protocol\0\0"
#define NATIVE_GREETING "protocol\0connection_cache_protocol\0extensions\0inline save farewell\0\0"

struct rig {
        char folder[32];
        struct sockaddr_un address;
        int listener;
        int service; /* the service's end of what was accepted last */
        int pair[2]; /* a connection to save, and its peer */
        struct scache *scache;
        size_t n_open; /* descriptors of this process before the test */
};

static inline size_t count_open(void) {
        DIR *folder = opendir("/proc/self/fd");
        size_t n = 0;

        while (readdir(folder))
                n++;
        closedir(folder);
        return n;
}

static inline void start_listening(struct rig *rig, int backlog) {
        rig->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        assert_true(rig->listener >= 0);
        assert_int_equal(bind(rig->listener, (struct sockaddr *) &rig->address, sizeof(rig->address)), 0);
        assert_int_equal(listen(rig->listener, backlog), 0);
}

static inline void stop_listening(struct rig *rig) {
        close(rig->listener);
        rig->listener = -1;
        unlink(rig->address.sun_path);
}

static inline void setup_with(void **state, unsigned flags) {
        struct rig *rig = calloc(1, sizeof(*rig));

        assert_non_null(rig);
        rig->n_open = count_open();
        strcpy(rig->folder, "/tmp/scache-XXXXXX");
        assert_non_null(mkdtemp(rig->folder));
        rig->address.sun_family = AF_UNIX;
        snprintf(rig->address.sun_path, sizeof(rig->address.sun_path), "%s/socket", rig->folder);
        rig->service = -1;
        start_listening(rig, 16);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, rig->pair), 0);
        assert_int_equal(scache_new(&rig->scache, rig->address.sun_path, flags), 0);
        *state = rig;
}

static inline int setup(void **state) {
        setup_with(state, 0);
        return 0;
}

static inline int setup_legacy(void **state) {
        setup_with(state, SCACHE_LEGACY);
        return 0;
}

static inline int teardown(void **state) {
        struct rig *rig = *state;

        scache_free(rig->scache);
        closep(&rig->listener);
        closep(&rig->service);
        closep(&rig->pair[0]);
        closep(&rig->pair[1]);
        unlink(rig->address.sun_path);
        rmdir(rig->folder);
        assert_int_equal(count_open(), rig->n_open);
        free(rig);
        return 0;
}

/* The service's side. Nothing here has to wait: what is expected has happened, or never will. */

static inline void service_hang_up(struct rig *rig) {
        close(rig->service);
        rig->service = -1;
}

static inline void service_accept(struct rig *rig) {
        if (rig->service >= 0)
                service_hang_up(rig);
        /* It may be waiting before it tries again, a few ms at most. */
        for (int i = 0; i < 2000; i++) {
                rig->service = accept4(rig->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                if (rig->service >= 0)
                        return;
                (void) poll(NULL, 0, 1);
                if (scache_process(rig->scache) == 1)
                        break;
        }
        fail_msg("nobody connects: %s", strerror(-scache_get_result(rig->scache)));
}

static inline void service_send(
        struct rig *rig, const void *data, size_t size, const int fds[], size_t n_fds) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(4 * sizeof(int))];
        } control = {};
        struct iovec iov = { (void *) data, size };
        struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (n_fds > 0) {
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
        }
        assert_int_equal(sendmsg(rig->service, &message, MSG_NOSIGNAL), (ssize_t) size);
}

/* Say a string literal, of which the NUL that C adds is no part. */
#define SAY(rig, text)          service_send((rig), "" text, sizeof(text) - 1, NULL, 0)
#define SAY_WITH(rig, text, fd) service_send((rig), "" text, sizeof(text) - 1, (const int[]){ (fd) }, 1)

static inline bool is_same(int a, int b) {
        struct stat x, y;

        return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino;
}

/* The library has said just this, with the descriptor of the connection to save, or without any. */
static inline void service_expect(struct rig *rig, const char *data, size_t size, bool with_fd) {
        char got[1024];
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {};
        struct iovec iov = { got, sizeof(got) };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t n = recvmsg(rig->service, &message, MSG_CMSG_CLOEXEC);

        assert_int_equal(n, (ssize_t) size);
        assert_memory_equal(got, data, size);
        assert_int_equal(message.msg_controllen > 0, with_fd);
        if (with_fd) {
                int fd;

                memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
                assert_true(is_same(fd, rig->pair[0]));
                close(fd);
        }
}

#define EXPECT(rig, text)      service_expect((rig), "" text, sizeof(text) - 1, false)
#define EXPECT_WITH(rig, text) service_expect((rig), "" text, sizeof(text) - 1, true)

static inline void expect_silence(struct rig *rig) {
        char byte;

        assert_int_equal(recv(rig->service, &byte, 1, 0), -1);
        assert_int_equal(errno, EAGAIN);
}

/* The library's side. */

static inline void under_way(struct rig *rig) {
        assert_int_equal(scache_process(rig->scache), 0);
        assert_int_equal(scache_get_result(rig->scache), -EINPROGRESS);
}

static inline void over(struct rig *rig, int result) {
        assert_int_equal(scache_process(rig->scache), 1);
        assert_int_equal(scache_get_result(rig->scache), result);
        assert_int_equal(scache_process(rig->scache), 0);
        assert_true(scache_get_timeout(rig->scache) == UINT64_MAX);
}

static inline void connected(struct rig *rig, const char *greeting, size_t size) {
        assert_int_equal(scache_start_connect(rig->scache), 0);
        service_accept(rig);
        under_way(rig);
        service_send(rig, greeting, size, NULL, 0);
        over(rig, 0);
}

#define CONNECTED(rig, text) connected((rig), "" text, sizeof(text) - 1)

static inline void found(struct rig *rig, const char *property, const char *destination_property) {
        size_t size;
        int fd;

        assert_string_equal(scache_get_property(rig->scache, &size), property);
        assert_int_equal(size, strlen(property));
        if (destination_property)
                assert_string_equal(
                        scache_get_destination_property(rig->scache, &size), destination_property);
        else
                assert_null(scache_get_destination_property(rig->scache, NULL));

        fd = scache_take_fd(rig->scache);
        assert_true(is_same(fd, rig->pair[0]));
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        close(fd);
        assert_int_equal(scache_take_fd(rig->scache), -ENOENT);
}

#define SAVE_ENDP      "request\0save_endp\0ttl\00030\0label\0e\0property\0p\0"
#define SAVE_DEST      "request\0save_dest\0ttl\00030\0label\0d\0property\0b\0label\0e\0\0"
#define SAVE           "request\0save\0ttl\00030\0label\0d\0property\0b\0label\0e\0property\0p\0"
#define FIND_ENDP      "request\0find_endp\0label\0e\0"
#define FIND_DEST      "request\0find_dest\0label\0d\0"
#define INLINE         "handover\0inline\0"
#define FAREWELL       "farewell\0QUIT\r\n\0"
#define EPOCH          "epoch\0007\0"
#define DUMMY          "dummy\0\0\0"
#define OK             "status\0000\0\0"
#define BAD            "status\0001\0\0"
#define FAILED         "status\0002\0\0"
#define FOUND_ENDP     "status\0000\0property\0p\0\0"
#define FOUND_DEST     "status\0000\0property\0b\0property\0p\0\0"
#define NOT_FOUND_ENDP "status\0002\0property\0\0\0"

static inline int start_save_endp(struct rig *rig) {
        return scache_start_save_endp(rig->scache, 30, "e", "p", "QUIT\r\n", rig->pair[0]);
}

static inline int start_save(struct rig *rig) {
        return scache_start_save(rig->scache, 30, "d", "b", "e", "p", "QUIT\r\n", rig->pair[0]);
}
