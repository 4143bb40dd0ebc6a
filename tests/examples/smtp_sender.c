/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Send a message: smtp_sender SOCKET HOST PORT FROM TO <message
 *
 * What an agent does with libscache: find a connection by its destination, check that it still works, and park it
 * after the message, with what the next process has to know about it as its property. */

#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "scache.h"

#define TTL_S 30

struct session {
        int fd;
        unsigned n_uses; /* messages sent over this connection, in whatever process */
        char answer[1024];
};

/* Read an answer, of several lines maybe. Returns its code. */
static int read_answer(struct session *session) {
        size_t n = 0;

        for (;;) {
                ssize_t got = read(session->fd, session->answer + n, sizeof(session->answer) - 1 - n);
                const char *line = session->answer, *next;

                if (got <= 0)
                        return -1;
                n += (size_t) got;
                session->answer[n] = 0;

                /* The last line of an answer has a space after its code. */
                while ((next = strchr(line, '\n')) && next[1])
                        line = next + 1;
                if (next && strlen(line) > 3 && line[3] == ' ')
                        return atoi(line);
                if (n + 1 >= sizeof(session->answer))
                        return -1;
        }
}

/* Say a command and check that the answer begins with this digit. */
static int say(struct session *session, const char *command, int digit) {
        size_t size = strlen(command);

        if (send(session->fd, command, size, MSG_NOSIGNAL) != (ssize_t) size)
                return -1;
        return read_answer(session) / 100 == digit ? 0 : -1;
}

static int say_to(struct session *session, const char *command, const char *address, int digit) {
        char line[1024];
        int n = snprintf(line, sizeof(line), "%s:<%s>\r\n", command, address);

        return n > 0 && (size_t) n < sizeof(line) ? say(session, line, digit) : -1;
}

static int dial(struct session *session, const char *host, const char *port) {
        struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *info;

        session->fd = -1;
        session->n_uses = 0;
        if (getaddrinfo(host, port, &hints, &info) != 0)
                return -1;
        for (struct addrinfo *i = info; i && session->fd < 0; i = i->ai_next) {
                session->fd = socket(i->ai_family, i->ai_socktype, i->ai_protocol);
                if (session->fd >= 0 && connect(session->fd, i->ai_addr, i->ai_addrlen) < 0) {
                        close(session->fd);
                        session->fd = -1;
                }
        }
        freeaddrinfo(info);

        return session->fd >= 0 && read_answer(session) / 100 == 2 ? say(session, "EHLO localhost\r\n", 2)
                                                                   : -1;
}

/* Find a connection that still works. */
static int reuse(struct session *session, struct scache *scache, const char *destination) {
        while (scache_find_dest(scache, destination, &session->fd) >= 0) {
                session->n_uses = (unsigned) atoi(scache_get_property(scache, NULL));
                if (say(session, "RSET\r\n", 2) == 0)
                        return 0;
                close(session->fd);
        }
        return -1;
}

static void park(
        struct session *session, struct scache *scache, const char *destination, const char *endpoint) {
        char property[16];
        int r;

        snprintf(property, sizeof(property), "%u", session->n_uses);
        r = scache_save(scache, TTL_S, destination, "", endpoint, property, "QUIT\r\n", session->fd);
        if (r < 0) {
                /* It is still ours, so the goodbye is, too. */
                fprintf(stderr, "smtp_sender: not parked: %s\n", strerror(-r));
                (void) say(session, "QUIT\r\n", 2);
        }
        close(session->fd);
}

/* Send the message on standard input, its lines ended and its dots doubled as SMTP wants them. */
static int send_message(struct session *session, const char *from, const char *to) {
        char *line = NULL;
        size_t size = 0;
        ssize_t n;

        if (say_to(session, "MAIL FROM", from, 2) < 0 || say_to(session, "RCPT TO", to, 2) < 0 ||
                say(session, "DATA\r\n", 3) < 0)
                return -1;

        while ((n = getline(&line, &size, stdin)) > 0) {
                if (line[n - 1] == '\n')
                        n--;
                if ((line[0] == '.' && send(session->fd, ".", 1, MSG_NOSIGNAL) != 1) ||
                        send(session->fd, line, (size_t) n, MSG_NOSIGNAL) != n ||
                        send(session->fd, "\r\n", 2, MSG_NOSIGNAL) != 2)
                        break;
        }
        free(line);
        session->n_uses++;
        return say(session, ".\r\n", 2);
}

int main(int argc, char *argv[]) {
        char destination[512], endpoint[512];
        struct session session;
        struct scache *scache;

        if (argc != 6) {
                fprintf(stderr, "usage: smtp_sender SOCKET HOST PORT FROM TO <message\n");
                return 64;
        }
        snprintf(destination, sizeof(destination), "smtp\n%s\n%s", argv[2], argv[3]);
        snprintf(endpoint, sizeof(endpoint), "smtp\n%s\n%s", argv[2], argv[3]);
        if (scache_new(&scache, argv[1], 0) < 0)
                return 71;

        if (reuse(&session, scache, destination) < 0 && dial(&session, argv[2], argv[3]) < 0) {
                fprintf(stderr, "smtp_sender: cannot reach %s port %s\n", argv[2], argv[3]);
                return 75;
        }
        if (send_message(&session, argv[4], argv[5]) < 0) {
                fprintf(stderr, "smtp_sender: the message was not taken: %s\n", session.answer);
                return 75;
        }
        printf("sent, conn_use=%u\n", session.n_uses);

        park(&session, scache, destination, endpoint);
        scache_free(scache);
        return 0;
}
