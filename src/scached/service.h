/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scached: the life of the service: start, serve, reload, exit */
#pragma once

#include <stdbool.h>

#include "daemon/journal.h"
#include "settings/settings.h"

/* The options on the command line; valid while the service runs. */
struct service_options {
        const char *config_directory;
        const char *const *overrides;
        size_t n_overrides;
};

/* Serve until told to exit, or idle for max_idle. Takes the settings, even if it fails. Returns an exit status of
 * sysexits.h: EX_USAGE if the service manager passed no socket. */
int service_run(struct journal *journal, const struct service_options *options, struct settings *settings);

/* Read the settings, and report their problems to the journal. Returns negative errno. */
int service_load_settings(
        struct journal *journal, const struct service_options *options, struct settings **ret);

/* Take over what a former process stored, and close all of it with its farewell: with these options, nobody will serve. */
void service_part(struct journal *journal, const struct service_options *options);
