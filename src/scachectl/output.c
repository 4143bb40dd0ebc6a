/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "base/cleanup.h"

/* A collector of metrics runs as another user. */
#define MODE 0644

int output_open(struct output *output, const char *path) {
        _cleanup_(closep) int fd = -1;
        _cleanup_(freep) char *path_new = NULL;
        const char *slash;
        struct stat st;
        int folder_size;

        if (!path) {
                *output = (struct output){ .stream = stdout };
                return 0;
        }

        /* rename(2) would remove a device or a link. */
        if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
                return -EEXIST;

        /* In the same folder, so that rename(2) works, and with a dot, so that collectors skip it. */
        slash = strrchr(path, '/');
        folder_size = slash ? (int) (slash + 1 - path) : 0;
        if (asprintf(&path_new, "%.*s.%s.XXXXXX", folder_size, path, path + folder_size) < 0) {
                path_new = NULL;
                return -ENOMEM;
        }

        fd = mkostemp(path_new, O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *output = (struct output){ .stream = fdopen(fd, "w"), .path = path };
        if (!output->stream) {
                int r = -errno;

                (void) unlink(path_new);
                return r;
        }

        fd = -1;
        output->path_new = STEAL(path_new);
        return 0;
}

int output_finish(struct output *output) {
        int r = 0;

        if (fflush(output->stream) != 0)
                r = -errno;
        else if (ferror(output->stream))
                r = -EIO; /* an earlier write failed, and its errno is lost */
        if (!output->path_new)
                return r;

        if (r == 0 && (fchmod(fileno(output->stream), MODE) < 0 || fsync(fileno(output->stream)) < 0))
                r = -errno;
        if (fclose(output->stream) != 0 && r == 0)
                r = -errno;
        if (r == 0 && rename(output->path_new, output->path) < 0)
                r = -errno;
        if (r < 0)
                (void) unlink(output->path_new);
        freep(&output->path_new);
        return r;
}

int output_explain(const char *path, int error) {
        if (error == -EEXIST)
                fprintf(stderr, "scachectl: %s is not a regular file: --output does not replace it.\n",
                        path);
        else
                fprintf(stderr, "scachectl: Could not write %s: %s.\n", path ? path : "the output",
                        strerror(-error));
        return EX_IOERR;
}
