/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* epochs: which files make up the configuration under which a process of Postfix runs */
#pragma once

#include <stddef.h>

#include "base/slice.h"

/* smtp(8) reads main.cf when it starts, and what master.cf says is on its command line. From both it knows its tables. */

/* The most files that are named, and the most bytes of a path. */
#define CONFIGURATION_FILES_MAX 64
#define CONFIGURATION_PATH_MAX  4096

#define CONFIGURATION_PROBLEM_MAX 512

/* Postfix's own default of queue_directory. */
#define CONFIGURATION_QUEUE "/var/spool/postfix"

struct configuration {
        const char *directory; /* where main.cf is */
        const char *queue;     /* from there Postfix sees paths that are not absolute */
        struct slice main_cf;  /* its text */
        struct slice command;  /* arguments, each with a NUL at its end */
};

/* The files that are named, main.cf not among them. */
struct configuration_files {
        char *paths[CONFIGURATION_FILES_MAX];
        size_t n;
};

/* List the files that the parameters of smtp(8) name: tables, in the form in which Postfix opens them, certificates and keys. The
 * caller owns them (configuration_files_deinit()), even if this fails. Returns -ENOMEM, or -EINVAL and the PROBLEM in words, with
 * room for CONFIGURATION_PROBLEM_MAX bytes. */
int configuration_files(
        const struct configuration *configuration, struct configuration_files *ret, char *problem);
void configuration_files_deinit(struct configuration_files *files);

/* Get the value of a parameter, FALLBACK if it is not set; the caller owns it. Returns -ENOMEM, or -EINVAL if its value cannot be
 * expanded. */
int configuration_value(
        const struct configuration *configuration, const char *name, const char *fallback, char **ret);

/* Return the name of the service in master.cf, for which the process runs. */
struct slice configuration_service(struct slice command);
