/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon: sends datagrams to a receiver that may not read them, without waiting */
#pragma once

#include <stddef.h>
#include <sys/uio.h>

/* libsystemd's sd_notify(3) and sd_journal_send(3) wait for room in the receiver's queue, so a service manager or a journal that
 * stands still would make every agent wait. */

struct datagram {
        int fd; /* connected, or -1 */
        const char *path;
};

/* Send to the AF_UNIX datagram socket at PATH, which must stay valid; '@' in front makes it abstract. No socket is made
 * before it is needed. */
void datagram_init(struct datagram *datagram, const char *path);
void datagram_release(struct datagram *datagram);

/* Send one datagram, with N_FDS descriptors attached, which stay the caller's. Connects anew if the receiver has another socket
 * by now. Returns -EAGAIN if the receiver must read first, or another negative errno. */
int datagram_send(
        struct datagram *datagram, const struct iovec iov[], size_t n_iov, const int fds[], size_t n_fds);
