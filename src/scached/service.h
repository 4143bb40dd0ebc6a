/* scached: the life of the service: start, serve, reload, leave */
#pragma once

#include <stdbool.h>

#include "daemon/journal.h"
#include "settings/settings.h"

/* What the command line asked for; valid as long as the service runs. */
struct service_options {
        const char *config_directory;
        const char *const *overrides;
        size_t n_overrides;
};

/* Serve until told to leave or idle for long enough. The settings are the service's from here on, in every case. Returns an
 * exit status as in sysexits.h: EX_USAGE if the service manager passed no socket. */
int service_run(struct journal *journal, const struct service_options *options, struct settings *settings);

/* Read the settings; what is wrong with them goes to the journal. Returns negative errno. */
int service_load_settings(
        struct journal *journal, const struct service_options *options, struct settings **ret);
