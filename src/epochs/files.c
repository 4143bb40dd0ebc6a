/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "epochs/files.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* File times come from a clock that stands still between two ticks, which are at most 10 ms apart. Another 10 ms are for the
 * time between two readings of clocks. */
#define MARGIN_US (UINT64_C(20) * USEC_PER_MSEC)

static uint64_t nsec_of(struct timespec time) {
        return time.tv_sec < 0 ? 0 : (uint64_t) time.tv_sec * UINT64_C(1000000000) + (uint64_t) time.tv_nsec;
}

static bool is_missing(int error) {
        return error == ENOENT || error == ENOTDIR;
}

int file_state_read(const char *path, struct file_state *ret) {
        struct stat st;

        *ret = (struct file_state){};
        if (lstat(path, &st) < 0)
                return is_missing(errno) ? 0 : -errno;

        if (S_ISLNK(st.st_mode)) {
                ret->link_inode = st.st_ino;
                ret->link_changed_ns = nsec_of(st.st_ctim);
                if (stat(path, &st) < 0)
                        return is_missing(errno) ? 0 : -errno;
        }

        if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
                return 0;

        ret->is_there = 1;
        ret->device = st.st_dev;
        ret->inode = st.st_ino;
        ret->size = (uint64_t) st.st_size;
        ret->modified_ns = nsec_of(st.st_mtim);
        ret->changed_ns = nsec_of(st.st_ctim);
        return 0;
}

uint64_t file_state_changed_ns(const struct file_state *state) {
        return MAX(state->changed_ns, state->link_changed_ns);
}

bool history_is_of(const struct history *history, uint64_t digest) {
        return history->seen_us > 0 && history->digest == digest;
}

void history_note(struct history *history, const struct sight *sight) {
        uint64_t since_us = MAX(sight->changed_us, sight->clock_set_us);

        if (history_is_of(history, sight->digest)) {
                history->seen_us = sight->before_us;
                return;
        }

        if (since_us <= history->seen_us)
                since_us = sight->after_us; /* the last look, after that, still saw another state */

        *history = (struct history){
                .digest = sight->digest,
                .since_us =
                        MIN(since_us, sight->after_us), /* a time in the future: the clock was set back */
                .seen_us = MAX(sight->before_us, UINT64_C(1)),
        };
}

bool history_covers(const struct history *history, uint64_t started_us) {
        return started_us > usec_add(history->since_us, MARGIN_US);
}
