/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settings: the choices of the administrator, from main.cf, scached.conf and -o */
#pragma once

#include <sys/types.h>

#include "base/cleanup.h"
#include "settings/parameter.h"
#include "settings/report.h"

#ifndef SETTINGS_CONFIG_DIRECTORY
#define SETTINGS_CONFIG_DIRECTORY "/etc/scached"
#endif

struct settings_text;

struct settings_request {
        const char *config_directory; /* NULL: SETTINGS_CONFIG_DIRECTORY, which then need not exist */
        const char *const *overrides; /* "name=value" of each -o, in order */
        size_t n_overrides;
        pid_t process_id; /* for $process_id */
};

/* Read main.cf, then scached.conf in the folder of the request, then its overrides; later values win. Either file may be
 * missing. All problems are reported before this fails; REPORT may be NULL. On success the caller owns *ret; on failure
 * *ret does not change, so that a reload can keep the old settings. Returns 0, -EINVAL for a bad value or file, -ENOMEM, or
 * the negative errno of the first file that could not be read. */
int settings_load(const struct settings_request *request, settings_report_fn report, void *userdata,
        struct settings **ret);

/* The same with the texts of the files (NULL: no such file), without reading any file. */
int settings_load_texts(const struct settings_request *request, const struct settings_text *main_cf,
        const struct settings_text *scached_conf, settings_report_fn report, void *userdata,
        struct settings **ret);

/* Free the settings. Accepts NULL. */
void settings_free(struct settings *settings);
DEFINE_CLEANUP(struct settings *, settings_free);
