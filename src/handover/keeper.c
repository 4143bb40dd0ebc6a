/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handover/keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

/* systemd does not mention processes in brackets that are left behind: they are helpers. */
#define KEEPER_NAME "(sc-keep)"

/* As many descriptors as the kernel passes with a message (SCM_MAX_FD). */
#define BATCH_MAX 253

/* How long the service manager may take from the close of the lease to that of the rest, in ms. */
#define GRACE_MS 100

struct keeper {
        int channel;
};

union control {
        struct cmsghdr header;
        char space[CMSG_SPACE(BATCH_MAX * sizeof(int))];
};

/* Receive a batch. Only the end of the process closes it. Returns false at the end. */
static bool receive(int channel, int *ret_first) {
        union control control;
        char byte;
        struct iovec iov = { &byte, sizeof(byte) };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t n;

        do
                n = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);

        if (n > 0 && CMSG_FIRSTHDR(&message))
                memcpy(ret_first, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
        return n > 0;
}

static _Noreturn void keep(int channel) {
        struct pollfd lease = { -1, 0, 0 };
        sigset_t all;
        int first;

        /* It ends when it is told to, as at shutdown. */
        (void) sigfillset(&all);
        (void) sigdelset(&all, SIGTERM);
        (void) sigprocmask(SIG_SETMASK, &all, NULL);
        (void) prctl(PR_SET_NAME, KEEPER_NAME);
        for (int fd = 0; fd < channel; fd++)
                (void) close(fd);

        if (receive(channel, &lease.fd)) {
                while (receive(channel, &first))
                        ;
                while (lease.fd >= 0 && poll(&lease, 1, -1) <= 0)
                        ;
                (void) poll(NULL, 0, GRACE_MS);
        }
        _exit(0);
}

struct keeper *keeper_new(void) {
        struct keeper *keeper;
        int pair[2];
        pid_t pid;

        keeper = malloc(sizeof(*keeper));
        if (!keeper || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
                free(keeper);
                return NULL;
        }

        /* The keeper's end has the highest number of all open descriptors. */
        pid = fork();
        if (pid == 0) {
                (void) close(pair[0]);
                keep(pair[1]);
        }
        (void) close(pair[1]);
        *keeper = (struct keeper){ pair[0] };
        return pid < 0 ? keeper_free(keeper) : keeper;
}

struct keeper *keeper_free(struct keeper *keeper) {
        if (!keeper)
                return NULL;

        closep(&keeper->channel);
        free(keeper);
        return NULL;
}

int keeper_lease(struct keeper *keeper) {
        int pair[2];

        if (!keeper)
                return -ESRCH;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;

        keeper_keep(keeper, &pair[0], 1);
        (void) close(pair[0]);
        return pair[1];
}

void keeper_keep(struct keeper *keeper, const int fds[], size_t n) {
        char byte = 0;
        struct iovec iov = { &byte, sizeof(byte) };

        for (size_t i = 0; keeper && i < n; i += BATCH_MAX) {
                size_t n_here = MIN(n - i, (size_t) BATCH_MAX);
                union control control = {};
                struct msghdr message = {
                        .msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = CMSG_SPACE(n_here * sizeof(int)),
                };

                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(n_here * sizeof(int));
                memcpy(CMSG_DATA(&control.header), fds + i, n_here * sizeof(int));
                if (sendmsg(keeper->channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                        return;
        }
}
