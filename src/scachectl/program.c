/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/program.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"

extern char **environ;

static int start(const char *const arguments[], int output_fd, pid_t *ret) {
        posix_spawn_file_actions_t actions;
        int r;

        r = posix_spawn_file_actions_init(&actions);
        if (r != 0)
                return -r;

        r = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (r == 0 && output_fd >= 0)
                r = posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO);
        else if (r == 0) {
                r = posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
                if (r == 0)
                        r = posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
        }
        if (r == 0)
                r = posix_spawnp(ret, arguments[0], &actions, NULL, (char *const *) arguments, environ);

        (void) posix_spawn_file_actions_destroy(&actions);
        return -r;
}

static int wait_for(pid_t pid) {
        int status;

        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;

        return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}

int program_run(const char *const arguments[]) {
        pid_t pid;
        int r;

        r = start(arguments, -1, &pid);
        return r < 0 ? r : wait_for(pid);
}

/* Read until the end, or until TEXT is full. */
static int read_all(int fd, char *text, size_t size) {
        size_t fill = 0;

        while (fill < size) {
                ssize_t n = read(fd, text + fill, size - fill);

                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n == 0)
                        break;
                fill += (size_t) MAX(n, (ssize_t) 0);
        }
        if (fill == size)
                return -E2BIG;

        while (fill > 0 && text[fill - 1] == '\n')
                fill--;
        text[fill] = 0;
        return 0;
}

int program_read(const char *const arguments[], char *text, size_t size) {
        int fds[2], r, status;
        pid_t pid;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;

        r = start(arguments, fds[1], &pid);
        (void) close(fds[1]);
        if (r >= 0) {
                r = read_all(fds[0], text, size);
                closep(&fds[0]);
                fds[0] = -1;
                status = wait_for(pid);
                if (r >= 0)
                        r = status;
        }
        closep(&fds[0]);
        return r;
}
