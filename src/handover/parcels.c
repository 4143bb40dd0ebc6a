/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handover/parcels.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

/* Descriptors in a message. The kernel allows 253; with fewer, a descriptor table that is nearly full still has room for one
 * message. */
#define BATCH_MAX 64

/* The data of a message. */
struct batch {
        uint64_t first; /* index of its first descriptor, among all descriptors */
        uint64_t n;
};

union control {
        struct cmsghdr header;
        char space[CMSG_SPACE(BATCH_MAX * sizeof(int))];
};

struct packer {
        const int *fds;
        int *places;
        struct parcel *parcels;
        size_t n_parcels;
        size_t max;
};

static int next_parcel(struct packer *packer) {
        int pair[2];

        if (packer->n_parcels >= packer->max)
                return -ENOSPC;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;

        packer->parcels[packer->n_parcels++] = (struct parcel){ pair[1], pair[0] };
        return 0;
}

static int send_batch(int sender, const int fds[], size_t first, size_t n) {
        struct batch batch = { first, n };
        union control control = {};
        struct iovec iov = { &batch, sizeof(batch) };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = CMSG_SPACE(n * sizeof(int)),
        };

        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds + first, n * sizeof(int));

        return sendmsg(sender, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int last_sender(const struct packer *packer) {
        return packer->parcels[packer->n_parcels - 1].sender;
}

/* Pack a batch. If the kernel refuses one, halve it until the descriptor that it refuses is alone: such a socket may have
 * descriptors in its own queue that are nested too deep, or a security module may forbid it. Returns -ENOSPC and the like if
 * no more can be packed. */
static int pack(struct packer *packer, size_t first, size_t n) {
        int r;

        r = send_batch(last_sender(packer), packer->fds, first, n);
        if (r == -EAGAIN) {
                r = next_parcel(packer);
                if (r < 0)
                        return r;
                r = send_batch(last_sender(packer), packer->fds, first, n);
        }

        if (r < 0 && n > 1) {
                r = pack(packer, first, n / 2);
                return r < 0 ? r : pack(packer, first + n / 2, n - n / 2);
        }

        for (size_t i = first; r >= 0 && i < first + n; i++)
                packer->places[i] = (int) packer->n_parcels - 1;
        return 0;
}

size_t parcels_pack(const int fds[], size_t n, struct parcel ret_parcels[], size_t max, int ret_places[]) {
        struct packer packer = {
                .fds = fds,
                .places = ret_places,
                .parcels = ret_parcels,
                .max = max,
        };
        int r;

        for (size_t i = 0; i < n; i++)
                ret_places[i] = PARCEL_NONE;
        r = next_parcel(&packer);
        for (size_t i = 0; i < n && r >= 0; i += BATCH_MAX)
                r = pack(&packer, i, MIN(n - i, (size_t) BATCH_MAX));
        return packer.n_parcels;
}

bool parcel_is_held(const struct parcel *parcel) {
        struct pollfd poll_fd = { parcel->sender, 0, 0 };

        return poll(&poll_fd, 1, 0) == 0;
}

/* Receive a batch. Returns its number of descriptors, -ENODATA if there is none, or another negative errno. */
static int receive_batch(int parcel, struct batch *ret_batch, int ret_fds[BATCH_MAX]) {
        union control control;
        struct iovec iov = { ret_batch, sizeof(*ret_batch) };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        size_t n_fds = 0;
        ssize_t n;

        n = recvmsg(parcel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n <= 0)
                return n == 0 || errno == EAGAIN ? -ENODATA : -errno;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
                if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
                        size_t n_here =
                                MIN((c->cmsg_len - CMSG_LEN(0)) / sizeof(int), (size_t) BATCH_MAX - n_fds);

                        memcpy(ret_fds + n_fds, CMSG_DATA(c), n_here * sizeof(int));
                        n_fds += n_here;
                }

        if ((size_t) n != sizeof(*ret_batch))
                ret_batch->n = n_fds;
        ret_batch->n = MIN(ret_batch->n, (uint64_t) BATCH_MAX);
        return (int) n_fds;
}

struct found_parcel {
        int fd;
        uint64_t first;
};

static int compare_parcels(const void *a, const void *b) {
        const struct found_parcel *x = a, *y = b;

        return x->first < y->first ? -1 : x->first > y->first;
}

/* Return whether this is a parcel, and the index of its first descriptor. */
static bool look(int fd, uint64_t *ret_first) {
        int domain, type;
        socklen_t size = sizeof(int);
        struct batch batch;

        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 || domain != AF_UNIX)
                return false;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_SEQPACKET)
                return false;

        if (recv(fd, &batch, sizeof(batch), MSG_PEEK | MSG_DONTWAIT) != sizeof(batch))
                return false;

        *ret_first = batch.first;
        return true;
}

size_t parcels_unpack(
        const int parcels[], size_t n, parcels_fn fn, void (*after_fn)(void *userdata), void *userdata) {
        _cleanup_(freep) struct found_parcel *sorted = NULL;
        size_t n_sorted = 0, n_lost = 0;

        sorted = calloc(MAX(n, (size_t) 1), sizeof(*sorted));
        if (!sorted)
                return 0;

        for (size_t i = 0; i < n; i++)
                if (look(parcels[i], &sorted[n_sorted].first))
                        sorted[n_sorted++].fd = parcels[i];
        qsort(sorted, n_sorted, sizeof(*sorted), compare_parcels);

        for (size_t i = 0; i < n_sorted; i++) {
                int fds[BATCH_MAX], n_fds;
                struct batch batch;

                while ((n_fds = receive_batch(sorted[i].fd, &batch, fds)) >= 0) {
                        for (int j = 0; j < n_fds; j++)
                                fn(userdata, fds[j]);
                        if (batch.n > (uint64_t) n_fds)
                                n_lost += (size_t) batch.n - (size_t) n_fds;
                        after_fn(userdata);
                }
        }

        return n_lost;
}
