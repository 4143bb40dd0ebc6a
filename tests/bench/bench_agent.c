/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The load: agents that take connections out of a cache and park them again, and note how long each cycle took.
 *
 *     bench_agent DIALECT SOCKET CONNECTIONS AGENTS [IN-USE [TTL-OF-THE-FIRST]]
 *
 * DIALECT is one of
 *     postfix    the dance of Postfix's smtp(8): find_dest, save_dest, save_endp, in five round trips
 *     one-trip   find_dest with handover=inline, and save: two round trips
 *     s6         s6-fdholderd: retrieve and delete, store: two round trips; entries with a limit in time, as the others
 *     s6-forever the same with entries that never end, which is what s6-fdholder-store stores
 *
 * It first parks CONNECTIONS connections over loopback TCP, the other ends of which stay open and silent here, and says
 * "ready". Then for each line on standard input, a number of milliseconds, AGENTS processes run cycles over random
 * connections for so long, each over its own share of them, and one line of JSON tells what came of it. An agent does
 * as little as it can between its system calls, so that what is measured is the server.
 *
 * IN-USE: so many of the connections are used, and the others only lie there; 0 for all.
 *
 * TTL-OF-THE-FIRST: each next connection is parked for a second less. Postfix's scache(8) keeps its timers in a sorted
 * list, where the last comes behind all others: so the filling of it takes seconds and not minutes, and the list is just
 * as long for the cycles, which are what is measured. */

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "bench.h"

#define AGENTS_MAX 1024

/* Longer than any run, and, for scache(8)'s sorted list, later than whatever was parked before. */
#define TTL 80000

/* Cycles that are noted, of each agent in each run. */
#define NOTES_MAX (1U << 18)

/* In memory that all agents share. */
struct shared {
        uint64_t duration_ns;
        struct notes {
                uint32_t n;
                uint32_t ns[NOTES_MAX];
        } notes[];
};

struct dialect {
        const char *name;
        bool greets;
        void (*park)(int agent, unsigned number, unsigned ttl, int fd);
        int (*take)(int agent, unsigned number);
};

static void say(int agent, const char *data, size_t size) {
        if (send(agent, data, size, MSG_NOSIGNAL) != (ssize_t) size)
                die("send");
}

static void say_with(int agent, const char *data, size_t size, int fd) {
        union control control;
        struct iovec iov;
        struct msghdr message = message_of(&iov, &control, data, size, fd);

        if (sendmsg(agent, &message, MSG_NOSIGNAL) != (ssize_t) size)
                die("sendmsg");
}

static void expect(int agent, const char *expected, size_t size) {
        char data[1024];
        ssize_t n;

        n = recv(agent, data, sizeof(data), 0);
        if (n != (ssize_t) size || memcmp(data, expected, size) != 0)
                die("an unexpected answer of %zi bytes instead of %zu: %.*s", n, size, n > 0 ? (int) n : 0,
                        data);
}

static int expect_with(int agent, const char *expected, size_t size) {
        union control control;
        char data[1024];
        struct iovec iov = { data, sizeof(data) };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t n;
        int fd;

        n = recvmsg(agent, &message, MSG_CMSG_CLOEXEC);
        fd = descriptor_of(&message);
        if (n != (ssize_t) size || memcmp(data, expected, size) != 0 || fd < 0)
                die("an unexpected answer of %zi bytes instead of %zu, or no descriptor", n, size);
        return fd;
}

static void postfix_park(int agent, unsigned number, unsigned ttl, int fd) {
        char data[512];
        int n;

        n = snprintf(data, sizeof(data),
                "request%csave_dest%cttl%c%u%clabel%c" DESTINATION_FORMAT "%cproperty%c" DESTINATION_PROPERTY
                "%clabel%c" ENDPOINT_FORMAT "%c",
                0, 0, 0, ttl, 0, 0, number, 0, 0, 0, 0, number, 0);
        say(agent, data, (size_t) n + 1);
        expect(agent, ANSWER_OK, sizeof(ANSWER_OK));

        n = snprintf(data, sizeof(data),
                "request%csave_endp%cttl%c%u%clabel%c" ENDPOINT_FORMAT "%cproperty%c" ENDPOINT_PROPERTY "%c",
                0, 0, 0, ttl, 0, 0, number, 0, 0, 0);
        say(agent, data, (size_t) n + 1);
        expect(agent, ANSWER_DUMMY, sizeof(ANSWER_DUMMY));
        say_with(agent, "", 1, fd);
        expect(agent, ANSWER_OK, sizeof(ANSWER_OK));
}

static int postfix_take(int agent, unsigned number) {
        char data[256];
        int n, fd;

        n = snprintf(data, sizeof(data), "request%cfind_dest%clabel%c" DESTINATION_FORMAT "%c", 0, 0, 0,
                number, 0);
        say(agent, data, (size_t) n + 1);
        expect(agent, ANSWER_DESTINATION, sizeof(ANSWER_DESTINATION));
        say(agent, ANSWER_DUMMY, sizeof(ANSWER_DUMMY));
        fd = expect_with(agent, "", 1);
        /* Postfix sends this one at once, too. */
        say(agent, ANSWER_DUMMY, sizeof(ANSWER_DUMMY));
        return fd;
}

static void one_trip_park(int agent, unsigned number, unsigned ttl, int fd) {
        char data[512];
        int n;

        n = snprintf(data, sizeof(data),
                "request%csave%cttl%c%u%clabel%c" DESTINATION_FORMAT "%cproperty%c" DESTINATION_PROPERTY
                "%clabel%c" ENDPOINT_FORMAT "%cproperty%c" ENDPOINT_PROPERTY "%c",
                0, 0, 0, ttl, 0, 0, number, 0, 0, 0, 0, number, 0, 0, 0);
        say_with(agent, data, (size_t) n + 1, fd);
        expect(agent, ANSWER_OK, sizeof(ANSWER_OK));
}

static int one_trip_take(int agent, unsigned number) {
        char data[256];
        int n;

        n = snprintf(data, sizeof(data),
                "request%cfind_dest%clabel%c" DESTINATION_FORMAT "%chandover%cinline%c", 0, 0, 0, number, 0,
                0, 0);
        say(agent, data, (size_t) n + 1);
        return expect_with(agent, ANSWER_DESTINATION, sizeof(ANSWER_DESTINATION));
}

/* s6's messages: their length and number of descriptors, big-endian in four and two bytes, then a letter for what is
 * wanted. A limit in time is a TAI64 label of 8 bytes and 4 of nanoseconds. An identifier has its length before and a
 * NUL behind it. An answer is one byte, 0 or an errno. */
#define S6_HEADER_SIZE 6

static size_t s6_identifier(char *to, unsigned number) {
        int n = snprintf(to + 1, LABEL_MAX, ENDPOINT_FORMAT, number);

        to[0] = (char) n;
        return (size_t) n + 2;
}

static void s6_header(char *to, size_t body_size, unsigned n_fds) {
        uint32_t size = htonl((uint32_t) body_size);
        uint16_t fds = htons((uint16_t) n_fds);

        memcpy(to, &size, 4);
        memcpy(to + 4, &fds, 2);
}

static void s6_store(int agent, unsigned number, uint64_t seconds, uint32_t nanoseconds, int fd) {
        static const char stored[] = { 0, 0, 0, 1, 0, 0, 0 };
        char data[S6_HEADER_SIZE + 1 + 12 + LABEL_MAX + 2], *p = data + S6_HEADER_SIZE;

        *p++ = 'S';
        for (int shift = 56; shift >= 0; shift -= 8)
                *p++ = (char) (seconds >> shift);
        for (int shift = 24; shift >= 0; shift -= 8)
                *p++ = (char) (nanoseconds >> shift);
        p += s6_identifier(p, number);
        s6_header(data, (size_t) (p - data) - S6_HEADER_SIZE, 1);
        say_with(agent, data, (size_t) (p - data), fd);
        expect(agent, stored, sizeof(stored));
}

static void s6_park(int agent, unsigned number, unsigned ttl, int fd) {
        struct timespec now;

        (void) clock_gettime(CLOCK_REALTIME, &now);
        s6_store(agent, number, (UINT64_C(1) << 62) + 10 + (uint64_t) now.tv_sec + ttl,
                (uint32_t) now.tv_nsec, fd);
}

static void s6_park_forever(int agent, unsigned number, unsigned ttl, int fd) {
        struct timespec now;

        (void) ttl;
        (void) clock_gettime(CLOCK_REALTIME, &now);
        /* What s6 calls infinite: as far from now as it counts, one and the same for all that is stored in a second. */
        s6_store(agent, number, UINT64_C(1) << 63, 0, fd);
}

static int s6_take(int agent, unsigned number) {
        static const char taken[] = { 0, 0, 0, 1, 0, 1, 0 };
        char data[S6_HEADER_SIZE + 2 + LABEL_MAX + 2], *p = data + S6_HEADER_SIZE;

        *p++ = 'R';
        *p++ = 1; /* and delete */
        p += s6_identifier(p, number);
        s6_header(data, (size_t) (p - data) - S6_HEADER_SIZE, 0);
        say(agent, data, (size_t) (p - data));
        return expect_with(agent, taken, sizeof(taken));
}

static const struct dialect dialects[] = {
        { "postfix", true, postfix_park, postfix_take },
        { "one-trip", true, one_trip_park, one_trip_take },
        { "s6", false, s6_park, s6_take },
        { "s6-forever", false, s6_park_forever, s6_take },
};

static int connect_to(const char *path, const struct dialect *dialect) {
        struct sockaddr_un address = unix_address(path);
        char greeting[1024];
        int fd;

        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *) &address, sizeof(address)) < 0)
                die("%s", path);
        if (dialect->greets && recv(fd, greeting, sizeof(greeting), 0) <= 0)
                die("%s: no greeting", path);
        return fd;
}

/* A TCP connection over the loopback: one end to park, the other is kept. */
static int open_connection(int listener, const struct sockaddr_in *to, unsigned number) {
        static const struct linger reset = { 1, 0 };
        struct sockaddr_in from = {
                .sin_family = AF_INET,
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 256 + number % 200),
        };
        int fd, kept, one = 1;

        /* Many addresses to come from, so that no port is used up. */
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) < 0 ||
                bind(fd, (struct sockaddr *) &from, sizeof(from)) < 0 ||
                connect(fd, (const struct sockaddr *) to, sizeof(*to)) < 0)
                die("connection %u", number);
        kept = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        /* It goes without a trace at the end. */
        if (kept < 0 || setsockopt(kept, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0)
                die("connection %u", number);
        return fd;
}

static void park_all(
        const struct dialect *dialect, const char *path, unsigned n_connections, unsigned first_ttl) {
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(address);
        int agent = connect_to(path, dialect), listener, fd;

        listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (listener < 0 || bind(listener, (struct sockaddr *) &address, sizeof(address)) < 0 ||
                listen(listener, 16) < 0 || getsockname(listener, (struct sockaddr *) &address, &size) < 0)
                die("listener");

        for (unsigned i = 0; i < n_connections; i++) {
                fd = open_connection(listener, &address, i);
                dialect->park(agent, i, first_ttl > 0 ? first_ttl - i : TTL, fd);
                (void) close(fd);
        }
        (void) close(listener);
        (void) close(agent);
}

/* One agent: waits until it is told to begin, works until the time is over, and says that it is done. */
static void serve_run(const struct dialect *dialect, const char *path, unsigned which, unsigned share,
        unsigned n_agents, int begin, int done, struct shared *shared) {
        struct notes *notes = &shared->notes[which];
        int agent = connect_to(path, dialect), fd;
        uint64_t random = which + 1, start, end, now;
        char byte;

        while (read(begin, &byte, 1) == 1) {
                notes->n = 0;
                start = now_ns();
                end = start + shared->duration_ns;
                do {
                        unsigned number = random_below(&random, share) * n_agents + which;

                        fd = dialect->take(agent, number);
                        dialect->park(agent, number, TTL, fd);
                        (void) close(fd);

                        now = now_ns();
                        if (notes->n < NOTES_MAX)
                                notes->ns[notes->n++] =
                                        (uint32_t) (now - start < UINT32_MAX ? now - start : UINT32_MAX);
                        start = now;
                } while (now < end);
                if (write(done, "", 1) != 1)
                        break;
        }
        exit(EXIT_SUCCESS);
}

static int compare(const void *a, const void *b) {
        uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

        return (x > y) - (x < y);
}

static void report(struct shared *shared, unsigned n_agents, uint64_t elapsed_ns) {
        uint32_t *all, least = UINT32_MAX, most = 0;
        size_t n = 0;

        for (unsigned i = 0; i < n_agents; i++)
                n += shared->notes[i].n;
        all = malloc(n * sizeof(*all));
        if (!all)
                die("malloc");
        n = 0;
        for (unsigned i = 0; i < n_agents; i++) {
                const struct notes *notes = &shared->notes[i];

                memcpy(all + n, notes->ns, notes->n * sizeof(*all));
                n += notes->n;
                least = notes->n < least ? notes->n : least;
                most = notes->n > most ? notes->n : most;
        }
        qsort(all, n, sizeof(*all), compare);

        (void) printf(
                "{\"cycles\": %zu, \"elapsed_ns\": %" PRIu64
                ", \"p50\": %u, \"p99\": %u, \"p999\": %u, \"max\": %u, \"fewest\": %u, \"most\": %u}\n",
                n, elapsed_ns, all[n / 2], all[n * 99 / 100], all[n * 999 / 1000], all[n - 1], least, most);
        (void) fflush(stdout);
        free(all);
}

int main(int argc, char *argv[]) {
        const struct dialect *dialect = NULL;
        unsigned n_connections, n_agents, n_used, share;
        struct rlimit limit;
        struct shared *shared;
        int begin[2], done[2];
        char line[64];

        if (argc < 5 || argc > 7) {
                (void) fputs("usage: bench_agent DIALECT SOCKET CONNECTIONS AGENTS "
                             "[IN-USE [TTL-OF-THE-FIRST]]\n",
                        stderr);
                return EXIT_FAILURE;
        }
        for (size_t i = 0; i < sizeof(dialects) / sizeof(dialects[0]); i++)
                if (strcmp(argv[1], dialects[i].name) == 0)
                        dialect = &dialects[i];
        n_connections = (unsigned) strtoul(argv[3], NULL, 10);
        n_agents = (unsigned) strtoul(argv[4], NULL, 10);
        n_used = argc > 5 ? (unsigned) strtoul(argv[5], NULL, 10) : 0;
        if (n_used == 0)
                n_used = n_connections;
        if (!dialect || n_agents < 1 || n_agents > AGENTS_MAX || n_used < n_agents ||
                n_connections < n_used) {
                (void) fputs("bench_agent: no such dialect, or fewer connections than agents\n", stderr);
                return EXIT_FAILURE;
        }
        share = n_used / n_agents;

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
                limit.rlim_cur = limit.rlim_max;
                (void) setrlimit(RLIMIT_NOFILE, &limit);
        }
        shared = mmap(NULL, sizeof(*shared) + n_agents * sizeof(struct notes), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (shared == MAP_FAILED || pipe(begin) < 0 || pipe(done) < 0)
                die("start");

        /* The agents first: they do not inherit the other ends of what is parked, and, for servers that give each agent
         * a place in the order in which they came, all came before the run. */
        for (unsigned i = 0; i < n_agents; i++) {
                pid_t pid = fork();

                if (pid < 0)
                        die("fork");
                if (pid == 0) {
                        (void) prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
                        (void) close(begin[1]);
                        (void) close(done[0]);
                        serve_run(dialect, argv[2], i, share, n_agents, begin[0], done[1], shared);
                }
        }
        (void) close(begin[0]);
        (void) close(done[1]);

        park_all(dialect, argv[2], n_connections, argc > 6 ? (unsigned) strtoul(argv[6], NULL, 10) : 0);
        (void) puts("ready");
        (void) fflush(stdout);

        while (fgets(line, sizeof(line), stdin)) {
                uint64_t start = now_ns();
                char bytes[AGENTS_MAX] = "";

                shared->duration_ns = strtoul(line, NULL, 10) * UINT64_C(1000000);
                if (write(begin[1], bytes, n_agents) != (ssize_t) n_agents)
                        die("begin");
                for (unsigned i = 0; i < n_agents; i++)
                        if (read(done[0], bytes, 1) != 1)
                                die("an agent failed");
                report(shared, n_agents, now_ns() - start);
        }

        (void) close(begin[1]);
        while (wait(NULL) > 0)
                ;
        return EXIT_SUCCESS;
}
