/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: a file for other programs, which never see half of it */
#pragma once

#include <stdio.h>

struct output {
        FILE *stream; /* to write to */
        const char *path;
        char *path_new; /* where it is written first; NULL for standard output */
};

/* Begin to write what is to be in the file PATH, which must stay valid; NULL is standard output. Returns -EEXIST if
 * something is there that is not a regular file, or what open(2) returns. */
int output_open(struct output *output, const char *path);

/* Put the file in its place, readable by everybody, once all of it is on the disk; the one before stays there if that
 * fails. Returns negative errno. */
int output_finish(struct output *output);

/* Report in one sentence that PATH, NULL for standard output, could not be written. ERROR is a negative errno. Returns the exit
 * status. */
int output_explain(const char *path, int error);
