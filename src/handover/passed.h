/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* handover: the descriptors from the service manager: listening sockets, and those that the process before stored */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct disposal;

/* The names under which handover_save() stores. A descriptor with another name is taken for a listening socket. */
#define PASSED_PARCEL "connections"
#define PASSED_INDEX  "index"

struct passed_socket {
        int fd; /* -1 once somebody has taken it */
        const char *name;
};

struct passed {
        struct passed_socket *sockets; /* taken for listening sockets, not checked yet */
        size_t n_sockets;
        int *parcel_fds;
        size_t n_parcels;
        int index_fd; /* -1 if there is none */
        char **names;
};

/* Take all descriptors that were passed, make them close-on-exec, and remove them from the environment. Works once in a
 * process. Returns negative errno. */
int passed_new(struct passed **ret);

/* Is there anything that a former process stored? */
static inline bool passed_has_stored(const struct passed *passed) {
        return passed->index_fd >= 0 || passed->n_parcels > 0;
}

/* Free, and have DISPOSAL close the descriptors that nobody has taken. Without one, our end closes them. */
struct passed *passed_free(struct passed *passed, struct disposal *disposal);
