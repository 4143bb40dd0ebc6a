/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handover/passed.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "custody/disposal.h"

static void sort_in(struct passed *passed, int fd, const char *name) {
        if (strcmp(name, PASSED_PARCEL) == 0)
                passed->parcel_fds[passed->n_parcels++] = fd;
        else if (strcmp(name, PASSED_INDEX) != 0)
                passed->sockets[passed->n_sockets++] = (struct passed_socket){ fd, name };
        else if (passed->index_fd < 0)
                passed->index_fd = fd;
        else
                (void) close(fd); /* a former process stores only one */
}

int passed_new(struct passed **ret) {
        struct passed *passed;
        int n;

        passed = calloc(1, sizeof(*passed));
        if (!passed)
                return -ENOMEM;
        passed->index_fd = -1;

        n = sd_listen_fds_with_names(true, &passed->names);
        if (n > 0) {
                passed->sockets = calloc((size_t) n, sizeof(*passed->sockets));
                passed->parcel_fds = calloc((size_t) n, sizeof(*passed->parcel_fds));
                if (!passed->sockets || !passed->parcel_fds)
                        n = -ENOMEM;
        }
        if (n < 0) {
                passed_free(passed, NULL);
                return n;
        }

        for (int i = 0; i < n; i++)
                sort_in(passed, SD_LISTEN_FDS_START + i, passed->names[i]);

        *ret = passed;
        return 0;
}

struct passed *passed_free(struct passed *passed, struct disposal *disposal) {
        if (!passed)
                return NULL;

        for (size_t i = 0; disposal && i < passed->n_sockets; i++)
                disposal_close(disposal, 0, DISPOSAL_SOCKET, passed->sockets[i].fd);
        for (size_t i = 0; disposal && i < passed->n_parcels; i++)
                disposal_close(disposal, 0, DISPOSAL_SOCKET, passed->parcel_fds[i]);
        closep(&passed->index_fd);
        for (char **name = passed->names; name && *name; name++)
                free(*name);
        free(passed->names);
        free(passed->sockets);
        free(passed->parcel_fds);
        free(passed);
        return NULL;
}
