/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The smallest service that systemd can start on demand and that answers an agent: what starting scached is compared
 * with. It speaks just enough to be asked once.
 *
 * Built twice: as systemd's manual shows it, on sd_listen_fds(3) and sd_notify(3), and, with -DWITHOUT_LIBSYSTEMD, on
 * the protocols behind those, so that nothing but libc is loaded. */

#include <stdbool.h>

#include "bench.h"

#ifdef WITHOUT_LIBSYSTEMD
/* Two lines of sd_notify(3): a datagram to a socket in the file system. */
static void notify(const char *text) {
        const char *path = getenv("NOTIFY_SOCKET");
        struct sockaddr_un address;
        int fd;

        if (!path)
                return;
        address = unix_address(path);
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        (void) sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *) &address, sizeof(address));
        (void) close(fd);
}
#define LISTEN_FD 3
#else
#include <systemd/sd-daemon.h>
#define notify(text) (void) sd_notify(false, text)
#define LISTEN_FD    (sd_listen_fds(true) > 0 ? SD_LISTEN_FDS_START : -1)
#endif

int main(void) {
        int listener = LISTEN_FD;

        notify("READY=1");
        for (;;) {
                char request[1024];
                int agent = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

                if (agent < 0)
                        die("accept4");
                (void) send(agent, GREETING, sizeof(GREETING), MSG_NOSIGNAL);
                while (recv(agent, request, sizeof(request), 0) > 0)
                        (void) send(agent, ANSWER_NONE, sizeof(ANSWER_NONE), MSG_NOSIGNAL);
                (void) close(agent);
        }
}
