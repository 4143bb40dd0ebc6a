/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* epochs: an agent's process: when it started, its command line, and its mounts */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/slice.h"

/* The longest command line, and the longest list of mounts, that is read, in bytes. */
#define PROCESS_COMMAND_MAX ((size_t) 64 * 1024)
#define PROCESS_MOUNTS_MAX  ((size_t) 8 * 1024 * 1024)

struct process {
        uint64_t
                started_us; /* CLOCK_BOOTTIME; it started at that time or up to a clock tick (10 ms) later */
        pid_t parent;       /* 0 if that one cannot be seen from here */
        struct slice command; /* arguments, each with a NUL at its end; with one more NUL after the last */
        char bytes[PROCESS_COMMAND_MAX + 1];
};

/* Read what the kernel says of a process (proc(5)). May wait for the process's memory. Returns -ENOENT or -ESRCH if it cannot be
 * seen, -E2BIG if its command line is too long, or another negative errno. */
int process_read(pid_t pid, struct process *ret);

/* Find parent and start time in the text of /proc/PID/stat. Returns -EBADMSG. */
int process_parse_stat(
        struct slice stat, uint64_t ticks_per_second, pid_t *ret_parent, uint64_t *ret_started_us);

/* Read the list of a process's mounts, as the kernel writes it, from the process's own root directory. The caller owns the text.
 * Returns -ENOMEM, or an error as process_read(). */
int process_read_mounts(pid_t pid, char **ret_data, size_t *ret_size);
