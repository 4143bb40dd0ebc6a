/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon: sends messages to the service manager in order, without waiting */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct loop;
struct notify;

/* Make a notifier for the service manager that $NOTIFY_SOCKET names, as sd_notify(3) describes it; without that variable, nothing is
 * sent. Messages that the service manager does not take now are kept and sent later. LOOP must outlive it. Returns negative errno. */
int notify_new(struct notify **ret, struct loop *loop);
struct notify *notify_free(struct notify *notify);

/* Is there a service manager? */
bool notify_is_heard(const struct notify *notify);

/* Send a message, after all that were sent before. FDS, N_FDS of them, stay the caller's. Returns -ENOTCONN if there is no service
 * manager, -ENOBUFS if too much waits already, or another negative errno; then the message is lost. */
int notify_say(struct notify *notify, const char *message, const int fds[], size_t n_fds);
_printf_(2, 3) int notify_sayf(struct notify *notify, const char *format, ...);

/* Take back all waiting messages with descriptors: the service manager will not get them. FN takes our copy of each descriptor; it
 * may be the last one. */
void notify_take_back(struct notify *notify, void (*fn)(void *userdata, int fd), void *userdata);

/* Set the line that `systemctl status` shows. Only the newest one waits, and nothing waits behind it. */
void notify_status(struct notify *notify, const char *status);

/* Send WATCHDOG=1 every INTERVAL µs; 0: never. */
void notify_watchdog(struct notify *notify, uint64_t interval_us);

/* Wait until the service manager has processed all messages, for at most TIMEOUT µs. Only for a service that serves no agent any
 * more. Returns -ETIMEDOUT if it has not, or another negative errno. */
int notify_settle(struct notify *notify, uint64_t timeout_us);
