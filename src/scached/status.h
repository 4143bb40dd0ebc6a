/* scached: what `systemctl status` shows: the state of the daemon in one line */
#pragma once

#include <stddef.h>

struct server;
struct status;

/* Begin to report. SERVER must outlive it. Returns negative errno. */
int status_new(struct status **ret, struct server *server);
struct status *status_free(struct status *status);

/* Let the service manager know within a second if something has changed. To be called as often as one likes. */
void status_touch(struct status *status);

/* The line as it would be sent now. Returns its length as snprintf(3). */
int status_describe(const struct server *server, char *buffer, size_t size);
