/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/timer.h"

/* A timer may come this much late. */
#define ACCURACY_US USEC_PER_MSEC

static int on_time(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *userdata) {
        struct loop_timer *timer = userdata;

        timer->at_us = USEC_INFINITY;
        timer->fn(timer->userdata);
        return 0;
}

int loop_timer_init(struct loop_timer *timer, struct loop *loop, loop_timer_fn fn, void *userdata) {
        int r;

        *timer = (struct loop_timer){ .loop = loop, .fn = fn, .userdata = userdata, .at_us = USEC_INFINITY };
        r = sd_event_add_time(
                loop_event(loop), &timer->source, CLOCK_BOOTTIME, 0, ACCURACY_US, on_time, timer);
        return r < 0 ? r : sd_event_source_set_enabled(timer->source, SD_EVENT_OFF);
}

void loop_timer_release(struct loop_timer *timer) {
        timer->source = sd_event_source_disable_unref(timer->source);
}

void loop_timer_set(struct loop_timer *timer, uint64_t at_us) {
        /* Do not touch the loop without a change: that makes work for it. */
        if (at_us == timer->at_us)
                return;

        /* This fails only after the end of the event loop, when no timer comes any more. */
        timer->at_us = at_us;
        (void) sd_event_source_set_time(timer->source, at_us);
        (void) sd_event_source_set_enabled(
                timer->source, loop_timer_is_set(timer) ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
        loop_touch(timer->loop);
}
