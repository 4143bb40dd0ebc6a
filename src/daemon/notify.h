/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon: what the service manager is told, in its order and without ever waiting */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct loop;
struct notify;

/* Speak to the service manager that $NOTIFY_SOCKET names, as sd_notify(3) describes it; where there is none, nothing is said
 * and nothing fails. What it does not take now is kept and said later. LOOP must outlive it. Returns negative errno. */
int notify_new(struct notify **ret, struct loop *loop);
struct notify *notify_free(struct notify *notify);

/* Is there a service manager? */
bool notify_is_heard(const struct notify *notify);

/* Say something, behind all that was said before. FDS, N_FDS of them, stay the caller's. Returns -ENOTCONN if there is no service
 * manager, -ENOBUFS if too much waits already, or another negative errno; then it is never said. */
int notify_say(struct notify *notify, const char *message, const int fds[], size_t n_fds);
_printf_(2, 3) int notify_sayf(struct notify *notify, const char *format, ...);

/* Say what `systemctl status` shows, one line. Only the newest one waits, and nothing waits behind it. */
void notify_status(struct notify *notify, const char *status);

/* Say every INTERVAL µs that the service is well; 0 for never. */
void notify_watchdog(struct notify *notify, uint64_t interval_us);

/* Wait until the service manager has worked on all that was said, for at most TIMEOUT µs. Only for a service that serves
 * nobody any more. Returns -ETIMEDOUT if it has not, or another negative errno. */
int notify_settle(struct notify *notify, uint64_t timeout_us);
