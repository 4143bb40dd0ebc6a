/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From connect(2) to the first answer, when nobody runs yet.
 *
 *     bench_start ROUNDS SERVER [ARGUMENT...] [-- SERVER [ARGUMENT...]]...
 *
 * In each round each server is started once: an agent connects to a socket on which nobody accepts yet, the server is
 * started on it as the service manager would, the agent reads its greeting, asks for an endpoint that is not there, and
 * gets the answer. Then the server is killed. One line a server on standard output: its times in ns. */

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "bench.h"

#define SERVERS_MAX 8
#define TIMEOUT_MS  20000

static const char request[] = "request\0find_endp\0label\0nowhere\0";

static void receive(int fd, const char *what) {
        char data[1024];
        struct pollfd ready = { fd, POLLIN, 0 };

        if (poll(&ready, 1, TIMEOUT_MS) != 1 || recv(fd, data, sizeof(data), 0) <= 0)
                die("no %s", what);
}

static void become(char **command, int listener) {
        char pid[16];

        /* dup2(2) to itself would leave it close-on-exec. */
        if (listener == 3 || dup2(listener, 3) < 0)
                _exit(126);
        (void) snprintf(pid, sizeof(pid), "%d", (int) getpid());
        (void) setenv("LISTEN_PID", pid, 1);
        (void) execv(command[0], command);
        _exit(127);
}

static uint64_t start_once(char **command, const char *path, int notified) {
        struct sockaddr_un address = unix_address(path);
        int listener, agent;
        uint64_t start, end;
        pid_t pid;

        (void) unlink(path);
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (listener < 0 || agent < 0 || bind(listener, (struct sockaddr *) &address, sizeof(address)) < 0 ||
                listen(listener, 16) < 0)
                die("%s", path);

        start = now_ns();
        if (connect(agent, (struct sockaddr *) &address, sizeof(address)) < 0)
                die("connect");
        pid = fork();
        if (pid < 0)
                die("fork");
        if (pid == 0)
                become(command, listener);
        receive(agent, "greeting");
        if (send(agent, request, sizeof(request), MSG_NOSIGNAL) != sizeof(request))
                die("send");
        receive(agent, "answer");
        end = now_ns();

        (void) kill(pid, SIGKILL);
        (void) waitpid(pid, NULL, 0);
        (void) close(agent);
        (void) close(listener);
        /* Whatever it had to say: the next one finds room. */
        for (char text[4096]; recv(notified, text, sizeof(text), MSG_DONTWAIT) > 0;)
                ;
        return end - start;
}

int main(int argc, char *argv[]) {
        char folder[] = "/tmp/scached-bench-XXXXXX", path[64], notify[64];
        char **servers[SERVERS_MAX];
        struct sockaddr_un address;
        unsigned long n_rounds;
        uint64_t *times;
        size_t n_servers = 0;
        int notified;

        if (argc < 3) {
                (void) fputs("usage: bench_start ROUNDS SERVER [ARGUMENT...] [-- SERVER ...]...\n", stderr);
                return EXIT_FAILURE;
        }
        n_rounds = strtoul(argv[1], NULL, 10);
        servers[n_servers++] = argv + 2;
        for (int i = 2; i < argc; i++)
                if (strcmp(argv[i], "--") == 0 && n_servers < SERVERS_MAX) {
                        argv[i] = NULL;
                        servers[n_servers++] = argv + i + 1;
                }

        if (!mkdtemp(folder))
                die("%s", folder);
        (void) snprintf(path, sizeof(path), "%s/socket", folder);
        (void) snprintf(notify, sizeof(notify), "%s/notify", folder);
        address = unix_address(notify);
        /* The numbers from 3 on are for what a server inherits. */
        notified = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        times = calloc(n_rounds * n_servers, sizeof(*times));
        if (notified < 0 || !times || bind(notified, (struct sockaddr *) &address, sizeof(address)) < 0)
                die("%s", notify);
        (void) setenv("NOTIFY_SOCKET", notify, 1);
        (void) setenv("LISTEN_FDS", "1", 1);
        (void) setenv("LISTEN_FDNAMES", "postfix", 1);

        for (unsigned long round = 0; round < n_rounds; round++)
                for (size_t i = 0; i < n_servers; i++)
                        times[i * n_rounds + round] = start_once(servers[i], path, notified);

        for (size_t i = 0; i < n_servers; i++)
                for (unsigned long round = 0; round < n_rounds; round++)
                        (void) printf("%" PRIu64 "%c", times[i * n_rounds + round],
                                round + 1 < n_rounds ? ' ' : '\n');
        (void) unlink(path);
        (void) unlink(notify);
        (void) rmdir(folder);
        free(times);
        return EXIT_SUCCESS;
}
