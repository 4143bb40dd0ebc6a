/* daemon: a timer that comes once, on CLOCK_BOOTTIME, and can be set anew at any time */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "daemon/loop.h"

/* The time has come, and the timer is no longer set. */
typedef void (*loop_timer_fn)(void *userdata);

/* Embedded in what it is for, and all zero before loop_timer_init(). */
struct loop_timer {
        struct loop *loop;
        sd_event_source *source;
        loop_timer_fn fn;
        void *userdata;
        uint64_t at_us; /* when it comes; USEC_INFINITY while it is not set */
};

/* Make a timer, not yet set, which must stay where it is until loop_timer_release(). LOOP must outlive it. Returns negative
 * errno. */
int loop_timer_init(struct loop_timer *timer, struct loop *loop, loop_timer_fn fn, void *userdata);

/* Release what the timer holds; it never comes again. One that was never made is as good. */
void loop_timer_release(struct loop_timer *timer);

/* Have the timer come at AT µs, up to 1 ms later, and no longer when it was set for so far; USEC_INFINITY: never. May be
 * called from anywhere, from its own function, too. */
_cold_ void loop_timer_set(struct loop_timer *timer, uint64_t at_us);

static inline bool loop_timer_is_set(const struct loop_timer *timer) {
        return timer->at_us < USEC_INFINITY;
}
