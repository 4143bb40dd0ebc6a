/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "epochs/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* Field 4 of /proc/PID/stat is the parent, field 22 the start time, field 2 the name in parentheses, which may have blanks and
 * parentheses. */
#define FIELD_NAME   2
#define FIELD_PARENT 4
#define FIELD_START  22

#define STAT_MAX 1024

/* Parse a field that is a number. */
static int parse_number(const char *at, const char *end, uint64_t *ret) {
        uint64_t value = 0;

        if (at == end || *at < '0' || *at > '9')
                return -EBADMSG;
        for (; at < end && *at >= '0' && *at <= '9'; at++)
                if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
                        __builtin_add_overflow(value, (uint64_t) (*at - '0'), &value))
                        return -EBADMSG;
        *ret = value;
        return 0;
}

int process_parse_stat(
        struct slice stat, uint64_t ticks_per_second, pid_t *ret_parent, uint64_t *ret_started_us) {
        const char *at = memrchr(stat.data, ')', stat.size);
        const char *end = stat.data + stat.size;
        uint64_t parent = 0, ticks = 0;
        int r = 0;

        if (!at)
                return -EBADMSG;

        for (int field = FIELD_NAME; r >= 0 && field < FIELD_START; field++) {
                at = memchr(at, ' ', (size_t) (end - at));
                if (!at)
                        return -EBADMSG;
                at++;
                if (field + 1 == FIELD_PARENT)
                        r = parse_number(at, end, &parent);
        }
        if (r >= 0)
                r = parse_number(at, end, &ticks);
        if (r < 0)
                return r;

        if (parent > INT_MAX || ticks / ticks_per_second > USEC_INFINITY / USEC_PER_SEC - 1)
                return -EBADMSG;
        *ret_parent = (pid_t) parent;
        *ret_started_us = ticks / ticks_per_second * USEC_PER_SEC +
                ticks % ticks_per_second * USEC_PER_SEC / ticks_per_second;
        return 0;
}

/* Read a file whole. Returns its size, -E2BIG if it is larger. */
static ssize_t read_at(int directory, const char *name, char *to, size_t size) {
        _cleanup_(closep) int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
        size_t done = 0;

        if (fd < 0)
                return -errno;

        for (;;) {
                ssize_t n = read(fd, to + done, size - done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return (ssize_t) done;
                done += (size_t) n;
                if (done == size)
                        return -E2BIG;
        }
}

static int open_process(pid_t pid) {
        char path[sizeof("/proc/") + 20];
        int fd;

        (void) snprintf(path, sizeof(path), "/proc/%jd", (intmax_t) pid);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

int process_read(pid_t pid, struct process *ret) {
        _cleanup_(closep) int directory = open_process(pid);
        char stat[STAT_MAX];
        ssize_t n;
        int r;

        if (directory < 0)
                return directory;

        n = read_at(directory, "stat", stat, sizeof(stat));
        if (n < 0)
                return (int) n;
        r = process_parse_stat((struct slice){ stat, (size_t) n }, (uint64_t) sysconf(_SC_CLK_TCK),
                &ret->parent, &ret->started_us);
        if (r < 0)
                return r;

        n = read_at(directory, "cmdline", ret->bytes, PROCESS_COMMAND_MAX);
        if (n < 0)
                return (int) n;
        ret->bytes[n] = '\0';
        ret->command = (struct slice){ ret->bytes, (size_t) n };
        return 0;
}

int process_read_mounts(pid_t pid, char **ret_data, size_t *ret_size) {
        _cleanup_(closep) int directory = open_process(pid);
        _cleanup_(freep) char *data = NULL;
        ssize_t n;

        if (directory < 0)
                return directory;

        data = malloc(PROCESS_MOUNTS_MAX);
        if (!data)
                return -ENOMEM;

        n = read_at(directory, "mountinfo", data, PROCESS_MOUNTS_MAX);
        if (n < 0)
                return (int) n;
        *ret_data = STEAL(data);
        *ret_size = (size_t) n;
        return 0;
}
