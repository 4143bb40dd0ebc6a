/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "epochs/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* Field 22 of /proc/PID/stat is the start time, field 2 the name in parentheses, which may have blanks and parentheses. */
#define FIELD_NAME  2
#define FIELD_START 22

#define STAT_MAX 1024

int process_parse_start(struct slice stat, uint64_t ticks_per_second, uint64_t *ret_us) {
        const char *at = memrchr(stat.data, ')', stat.size);
        const char *end = stat.data + stat.size;
        uint64_t ticks = 0;

        if (!at)
                return -EBADMSG;

        for (int field = FIELD_NAME; field < FIELD_START; field++) {
                at = memchr(at, ' ', (size_t) (end - at));
                if (!at)
                        return -EBADMSG;
                at++;
        }

        if (at == end || *at < '0' || *at > '9')
                return -EBADMSG;
        for (; at < end && *at >= '0' && *at <= '9'; at++)
                if (__builtin_mul_overflow(ticks, UINT64_C(10), &ticks) ||
                        __builtin_add_overflow(ticks, (uint64_t) (*at - '0'), &ticks))
                        return -EBADMSG;

        if (ticks / ticks_per_second > USEC_INFINITY / USEC_PER_SEC - 1)
                return -EBADMSG;
        *ret_us = ticks / ticks_per_second * USEC_PER_SEC +
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

int process_read(pid_t pid, struct process *ret) {
        _cleanup_(closep) int directory = -1;
        char path[sizeof("/proc/") + 20], stat[STAT_MAX];
        ssize_t n;
        int r;

        (void) snprintf(path, sizeof(path), "/proc/%jd", (intmax_t) pid);
        directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0)
                return -errno;

        n = read_at(directory, "stat", stat, sizeof(stat));
        if (n < 0)
                return (int) n;
        r = process_parse_start(
                (struct slice){ stat, (size_t) n }, (uint64_t) sysconf(_SC_CLK_TCK), &ret->started_us);
        if (r < 0)
                return r;

        n = read_at(directory, "cmdline", ret->bytes, PROCESS_COMMAND_MAX);
        if (n < 0)
                return (int) n;
        ret->bytes[n] = '\0';
        ret->command = (struct slice){ ret->bytes, (size_t) n };
        return 0;
}
