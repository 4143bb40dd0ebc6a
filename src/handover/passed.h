/* handover: what the service manager passed at start: listening sockets, and what a former process stored */
#pragma once

#include <stddef.h>

#include "base/cleanup.h"

/* The names under which handover_save() stores, and what else has a name is taken for a listening socket. */
#define PASSED_PARCEL "connections"
#define PASSED_INDEX  "index"

struct passed_socket {
        int fd; /* -1 once somebody has taken it */
        const char *name;
};

struct passed {
        struct passed_socket *sockets; /* listening, or meant to be */
        size_t n_sockets;
        int *parcel_fds;
        size_t n_parcels;
        int index_fd; /* -1 if there is none */
        char **names;
};

/* Take over all that was passed, close-on-exec, and clear the environment of it. It works once in a process. Returns
 * negative errno. */
int passed_new(struct passed **ret);

/* Close what nobody has taken and free. */
struct passed *passed_free(struct passed *passed);
DEFINE_CLEANUP(struct passed *, passed_free);
