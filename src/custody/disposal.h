/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* custody: disposal: closes descriptors whose close(2) may wait, in threads of their own */
#pragma once

#include <stdbool.h>

/* Closing a file on FUSE or NFS, or a terminal, can take any time. So each such descriptor is closed in a thread that does
 * nothing else. Only hostile agents send such descriptors. */

struct disposal;

/* The number of descriptors that wait to be closed at which no more are received. */
#define DISPOSAL_MAX 32

/* Returns negative errno. */
int disposal_new(struct disposal **ret);

/* Free it, without waiting. If a descriptor is still being closed, it is left to the end of the process. */
struct disposal *disposal_free(struct disposal *disposal);

/* Close an unexpected descriptor without waiting. Takes the descriptor; -1 does nothing. While the disposal is full, only
 * sockets may come: there is room for the other files of one more message. */
void disposal_close(struct disposal *disposal, int fd);

/* Return whether nothing is left to be closed. */
bool disposal_is_empty(const struct disposal *disposal);

/* Return whether no more descriptors may be received. Tries again to close those for which there was no thread. */
bool disposal_is_full(struct disposal *disposal);
