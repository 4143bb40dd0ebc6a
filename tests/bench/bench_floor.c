/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The floor: a server that makes the system calls a connection cache cannot do without, and does nothing else.
 *
 *     bench_floor SOCKET [care]
 *
 * It looks at no label, keeps no time, no limits and no users, allocates nothing, and answers with canned bytes. It
 * hands out any of the descriptors that it holds. One cycle over the Postfix dialect is
 *
 *     the agent sends              epoll_wait  recvmsg  send, sendmsg  close
 *     find_dest                        1          1           1          -     status and properties
 *     dummy                            1          1           1          1     the descriptor; our copy is closed
 *     the last dummy                   1          1           -          -
 *     save_dest                        1          1           1          -     status
 *     save_endp                        1          1           1          -     dummy
 *     one byte with a descriptor       1          1           1          -     status
 *                                      6          6           5          1
 *
 * and over the one-trip forms (find_dest with handover=inline, save) 2, 2, 2 and 1.
 *
 * Why none of these can go: the server must learn that an agent has sent something (epoll_wait; with many agents at once
 * one call serves all that are ready, here as in any server), must receive in a way that takes descriptors along
 * (recvmsg), must answer (send, or sendmsg where a descriptor goes along), and must give up its own copy of a
 * descriptor that was handed over (close). What it leaves out is what a cache is for: looking up, deadlines, and
 * noticing that a parked peer has hung up. So this is a lower bound for a server with one thread on epoll, and no server
 * that keeps its promises can quite reach it.
 *
 * With `care` it makes, besides, the four calls a cycle by which those promises are kept: it looks whether what came is a
 * socket (getsockopt), watches it while it is held (epoll_ctl, twice), and sees to it that its close will not wait
 * (setsockopt). What scached takes beyond that is its own work.
 *
 * The floor that others are compared with holds one descriptor, whatever they hold. Where it is given as many as they
 * have, it shows what the kernel needs to reach for a socket that it has not touched for long, which no server can
 * spare. */

#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/types.h>

#include "bench.h"

#define DESCRIPTORS_MAX 65536

static int held[DESCRIPTORS_MAX];
static size_t n_held;
static uint64_t random_state = 1;
static int epoll_fd;
static bool with_care;
static bool is_finding[DESCRIPTORS_MAX]; /* by the agent's descriptor: a dummy asks for what was found */

static void take_care(int fd) {
        struct epoll_event event = { .events = EPOLLIN | EPOLLPRI | EPOLLRDHUP, .data.fd = fd };
        socklen_t size = sizeof(int);
        int type;

        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
                epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
                die("care");
}

static void push(int fd) {
        if (fd < 0 || n_held == DESCRIPTORS_MAX)
                die("nothing to hold");
        if (with_care)
                take_care(fd);
        held[n_held++] = fd;
}

/* Any of them. */
static int pop(void) {
        unsigned i = random_below(&random_state, (unsigned) n_held);
        int fd = held[i];

        held[i] = held[--n_held];
        if (with_care)
                (void) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return fd;
}

static void answer(int agent, const char *data, size_t size) {
        if (send(agent, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t) size)
                die("send");
}

static void hand_over(int agent, const char *data, size_t size) {
        union control control;
        static const struct linger off = {};
        struct iovec iov;
        struct msghdr message;
        int fd;

        if (n_held == 0)
                die("nothing is held");
        fd = pop();
        message = message_of(&iov, &control, data, size, fd);
        if (sendmsg(agent, &message, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t) size)
                die("sendmsg");
        if (with_care)
                (void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
        (void) close(fd);
}

/* Requests are told apart by single bytes: request NUL find_dest, save_dest, save_endp, save. */
static void on_message(int agent, const char *data, size_t size, int fd) {
        if (size >= sizeof(ANSWER_DUMMY) && data[0] == 'd') {
                if (is_finding[agent])
                        hand_over(agent, "", 1);
                is_finding[agent] = false;
                if (size > sizeof(ANSWER_DUMMY))
                        on_message(agent, data + sizeof(ANSWER_DUMMY), size - sizeof(ANSWER_DUMMY), fd);
        } else if (size == 1) {
                push(fd);
                answer(agent, ANSWER_OK, sizeof(ANSWER_OK));
        } else if (size < 16) {
                die("half a request");
        } else if (data[8] == 'f') {
                if (memcmp(data + size - 9, "\0inline\0", 9) == 0) {
                        hand_over(agent, ANSWER_DESTINATION, sizeof(ANSWER_DESTINATION));
                } else {
                        is_finding[agent] = true;
                        answer(agent, ANSWER_DESTINATION, sizeof(ANSWER_DESTINATION));
                }
        } else if (data[12] == 0) {
                push(fd);
                answer(agent, ANSWER_OK, sizeof(ANSWER_OK));
        } else if (data[13] == 'd') {
                answer(agent, ANSWER_OK, sizeof(ANSWER_OK));
        } else {
                answer(agent, ANSWER_DUMMY, sizeof(ANSWER_DUMMY));
        }
}

static bool receive(int agent) {
        union control control;
        char data[1024];
        struct iovec iov = { data, sizeof(data) };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t n;

        n = recvmsg(agent, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n <= 0)
                return false;
        on_message(agent, data, (size_t) n, descriptor_of(&message));
        return true;
}

static void watch(int fd) {
        struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

        if (fd >= DESCRIPTORS_MAX || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
                die("epoll_ctl");
}

int main(int argc, char *argv[]) {
        struct epoll_event events[64];
        struct sockaddr_un address;
        int listener;

        with_care = argc == 3 && strcmp(argv[2], "care") == 0;
        if (argc != 2 && !with_care) {
                (void) fputs("usage: bench_floor SOCKET [care]\n", stderr);
                return EXIT_FAILURE;
        }

        address = unix_address(argv[1]);
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (listener < 0 || epoll_fd < 0 ||
                bind(listener, (struct sockaddr *) &address, sizeof(address)) < 0 ||
                listen(listener, 4096) < 0)
                die("%s", argv[1]);
        watch(listener);
        (void) puts("ready");
        (void) fflush(stdout);

        for (;;) {
                int n = epoll_wait(epoll_fd, events, 64, -1);

                for (int i = 0; i < n; i++) {
                        int fd = events[i].data.fd;

                        if (fd != listener) {
                                if (!receive(fd))
                                        (void) close(fd);
                                continue;
                        }
                        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                        if (fd < 0)
                                die("accept4");
                        watch(fd);
                        answer(fd, GREETING, sizeof(GREETING));
                }
        }
}
