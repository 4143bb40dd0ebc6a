/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* epochs: the state of files, and since when a state has been as it is */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* What tells one state of a file from another. Times in ns since 1970. All members have the same size, so that nothing between
 * them is left out of a hash. */
struct file_state {
        uint64_t is_there; /* as a regular file, or a directory */
        uint64_t device, inode, size, modified_ns, changed_ns;
        uint64_t link_inode, link_changed_ns; /* if the path leads to a symbolic link */
};

/* Get the state of a file. Whatever is neither a file nor a directory counts as not there. May wait for the file system. Returns
 * negative errno if it cannot be known. */
int file_state_read(const char *path, struct file_state *ret);

/* The status change of a file or of its link, whichever is later: unlike the modification time it cannot be set. */
uint64_t file_state_changed_ns(const struct file_state *state);

/* A look at the state of several files. Times are in µs on CLOCK_BOOTTIME. */
struct sight {
        uint64_t digest;     /* the same for the same states */
        uint64_t changed_us; /* the latest change that files and their directories tell of */
        uint64_t before_us;  /* when the look began, and ended */
        uint64_t after_us;
        uint64_t
                clock_set_us; /* when CLOCK_REALTIME was last seen to have been set: times before that may be wrong */
};

/* Since when the state has been as it is. All zero before the first look. */
struct history {
        uint64_t digest;
        uint64_t since_us;
        uint64_t seen_us; /* the last look that found this state */
};

/* Return whether the state was the same at the last look. */
bool history_is_of(const struct history *history, uint64_t digest);

/* Note a look. If no time tells of a change, it counts as made just now. */
void history_note(struct history *history, const struct sight *sight);

/* Return whether a process that started at STARTED µs, or up to 10 ms later, started under the state that has been there SINCE
 * µs. If that cannot be told: no. */
bool history_covers(const struct history *history, uint64_t started_us);
