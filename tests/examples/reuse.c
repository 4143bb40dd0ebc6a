/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Send NOOP to an SMTP server on a parked connection, or on a new
 * one, and park the connection for the next program. */
#define _POSIX_C_SOURCE 200809L
#include <netdb.h>
#include <scache.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int dial(const char *host, const char *port) {
        struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *info;
        int fd = -1;

        if (getaddrinfo(host, port, &hints, &info) != 0)
                return -1;
        for (struct addrinfo *i = info; i; i = i->ai_next) {
                fd = socket(i->ai_family, i->ai_socktype, i->ai_protocol);
                if (connect(fd, i->ai_addr, i->ai_addrlen) == 0)
                        break;
                close(fd);
                fd = -1;
        }
        freeaddrinfo(info);
        return fd;
}

int main(int argc, char *argv[]) {
        const char *path = argc > 3 ? argv[3] : NULL, *how;
        struct scache *cache;
        char label[256], answer[512];
        int fd, r;

        if (argc < 3 || scache_new(&cache, path, 0) < 0)
                return 1;
        snprintf(label, sizeof(label), "smtp\n%s\n%s", argv[1], argv[2]);

        r = scache_find_endp(cache, label, &fd);
        how = r < 0 ? "new" : "parked";
        if (r < 0) {
                /* -ENOENT is a miss. After any other error, go on
                 * without the cache. */
                fd = dial(argv[1], argv[2]);
                if (fd < 0 || read(fd, answer, sizeof(answer)) <= 0)
                        return 1;
        }

        if (write(fd, "NOOP\r\n", 6) != 6)
                return 1;
        if (read(fd, answer, sizeof(answer)) <= 0)
                return 1;
        printf("%.3s over a %s connection\n", answer, how);

        r = scache_save_endp(cache, 30, label, "", "QUIT\r\n", fd);
        if (r < 0)
                fprintf(stderr, "not parked: %s\n", strerror(-r));
        close(fd);
        scache_free(cache);
        return 0;
}
