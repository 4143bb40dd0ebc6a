/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* epochs: an agent's process: when it started, and its command line */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/slice.h"

/* The longest command line that is read, in bytes. */
#define PROCESS_COMMAND_MAX ((size_t) 64 * 1024)

struct process {
        uint64_t
                started_us; /* CLOCK_BOOTTIME; it started at that time or up to a clock tick (10 ms) later */
        struct slice command; /* arguments, each with a NUL at its end; with one more NUL after the last */
        char bytes[PROCESS_COMMAND_MAX + 1];
};

/* Read what the kernel says of a process (proc(5)). May wait for the process's memory. Returns -ENOENT or -ESRCH if it cannot be
 * seen, -E2BIG if its command line is too long, or another negative errno. */
int process_read(pid_t pid, struct process *ret);

/* Find the start time in the text of /proc/PID/stat. Returns -EBADMSG. */
int process_parse_start(struct slice stat, uint64_t ticks_per_second, uint64_t *ret_us);
