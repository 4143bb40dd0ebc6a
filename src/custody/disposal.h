/* custody: disposal: descriptors whose close(2) may wait, closed where nobody waits for it */
#pragma once

#include <stdbool.h>

/* Closing a file on FUSE or NFS, or a terminal, can take as long as somebody else likes. So it is done in a thread that does
 * nothing else: one for each such descriptor, which only agents that mean harm send. */

struct disposal;

/* How many descriptors may wait to be closed before no more are taken. */
#define DISPOSAL_MAX 32

/* Returns negative errno. */
int disposal_new(struct disposal **ret);

/* Free it, unless something is still being closed: then it is left to the end of the process. Waits for nothing. */
struct disposal *disposal_free(struct disposal *disposal);

/* Close a descriptor that was received and is not wanted, without waiting. It is the disposal's from here on. Takes -1,
 * too. While it is full, nothing but sockets may come: of the rest there is room for one message's more. */
void disposal_close(struct disposal *disposal, int fd);

/* Is nothing left to be closed? */
bool disposal_is_empty(const struct disposal *disposal);

/* Do so many wait to be closed that no more descriptors may be received? Tries again what found no thread. */
bool disposal_is_full(struct disposal *disposal);
