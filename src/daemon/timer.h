/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon: a timer that expires once, on CLOCK_BOOTTIME, and can be set again at any time */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "daemon/loop.h"

/* Called when the timer has expired; it is no longer set. */
typedef void (*loop_timer_fn)(void *userdata);

/* Embedded in its user's structure, and all zero before loop_timer_init(). */
struct loop_timer {
        struct loop *loop;
        sd_event_source *source;
        loop_timer_fn fn;
        void *userdata;
        uint64_t at_us; /* when it expires; USEC_INFINITY while it is not set */
};

/* Make a timer that is not set yet. It must not move until loop_timer_release(), and LOOP must outlive it. Returns negative
 * errno. */
int loop_timer_init(struct loop_timer *timer, struct loop *loop, loop_timer_fn fn, void *userdata);

/* Stop and release a timer. Does nothing for one that was never made. */
void loop_timer_release(struct loop_timer *timer);

/* Set the timer to AT µs instead of its time so far; it expires up to 1 ms later. USEC_INFINITY stops it. May be called from
 * anywhere, including its own function. */
_cold_ void loop_timer_set(struct loop_timer *timer, uint64_t at_us);

static inline bool loop_timer_is_set(const struct loop_timer *timer) {
        return timer->at_us < USEC_INFINITY;
}
