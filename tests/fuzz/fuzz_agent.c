/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The agents' whole way through the daemon, in one process and a round at a time: the input is a script of what up to four
 * agents and the peers of their connections do. Nothing may crash, leak memory or a descriptor, be in two places or in the
 * hands of the wrong user, or make a round wait.
 *
 * The first byte of a script says how the daemon is set up (enum setup). Each command after it is a byte with the agent in
 * its lowest two bits and the action (enum action) above them, followed by the action's own bytes. Where this runs as root, the
 * agents can be of several users. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agents/agents.h"
#include "agents/server.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "custody/disposal.h"
#include "fuzz.h"

enum setup {
        SETUP_SHARED = 1,
        SETUP_FEW_CONNECTIONS = 2,
        SETUP_FEW_BYTES = 4,
        SETUP_FEW_AGENTS = 8,
        SETUP_LITTLE_ROOM = 16, /* answers fill the socket soon */
        SETUP_NO_FAREWELL = 32,
        SETUP_WORKERS =
                128, /* they close, as in the daemon; otherwise it is done in place, and nothing lingers */
};

enum action {
        ACTION_SEND,             /* n, bytes */
        ACTION_SEND_DESCRIPTORS, /* how many of what (see there), n, bytes */
        ACTION_READ,
        ACTION_CLOSE,
        ACTION_CONNECT, /* dialect, and user above the lowest four bits */
        ACTION_PEER,    /* whose peer, what it does */
        ACTION_SHUTDOWN,
        ACTION_LET_GO,
        _ACTION_MAX,
};

/* What is sent, in the bits 2 to 4 of that byte. */
enum kind {
        KIND_SOCKET,
        KIND_LISTENING, /* with somebody in its queue, who has sent a connection */
        KIND_TCP,       /* with HOW_LINGER, whoever closes it last waits */
        KIND_COPY,      /* of the last connection */
        KIND_PIPE,
        KIND_EPOLL,
        KIND_DEVICE,
        KIND_OWN, /* the agent's own socket */
};

/* The other bits. */
#define HOW_MANY   3    /* copies; 0: one, or with HOW_LINGER, as many as a message takes */
#define HOW_DEPTH  0x60 /* in the queue of that many sockets, one within the other */
#define HOW_LINGER 0x80

#define AGENTS_MAX       4
#define USERS_MAX        3
#define SOCKETS_MAX      64
#define DESCRIPTORS_MANY 253 /* SCM_MAX_FD */
#define REQUEST_SIZE     600

/* So long waits whoever waits for a peer, and no round takes nearly as long otherwise, however busy the machine is. */
#define LINGER_S       20
#define ROUND_WORST_US (15 * USEC_PER_SEC)

struct script {
        const uint8_t *data;
        size_t size;
};

struct world {
        struct server server;
        struct disposal *disposal;
        struct agents *set; /* the daemon's ends of `agents` */
        struct settings settings;
        uint64_t wait_us;
        uint8_t setup;
        int agents[AGENTS_MAX];
        uid_t users[AGENTS_MAX]; /* theirs */
        /* Connections that were sent to the daemon, each once: the peers' ends, and who they are. */
        int peers[SOCKETS_MAX];
        uint64_t cookies[SOCKETS_MAX];
        bool received[SOCKETS_MAX];        /* an agent has it back */
        bool sent[SOCKETS_MAX][USERS_MAX]; /* by this user */
        bool copied[SOCKETS_MAX];          /* sent more than once */
        int copy;                          /* of the last one that was sent, or -1 */
        size_t copied_socket;              /* which that is */
        size_t n_sockets;
        bool lingers[SOCKETS_MAX]; /* its last close(2) waits for its peer */
        bool is_holding_itself;    /* an agent has parked its own socket, which therefore outlives it */
};

/* The lines are put together, for the sanitizers' sake, and nobody reads them. */
bool journal_is_verbose(_unused_ const struct journal *journal) {
        return true;
}

void journal_write(_unused_ struct journal *journal, _unused_ enum event event,
        _unused_ const struct journal_subject *subject, _unused_ struct journal_place place,
        const char *format, ...) {
        char line[1024];
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(line, sizeof(line), format, arguments);
        va_end(arguments);
}

static uint8_t next_byte(struct script *script) {
        if (script->size == 0)
                return 0;

        script->size--;
        return *script->data++;
}

/* A byte with a length and the bytes, as many as there are. */
static struct slice next_bytes(struct script *script) {
        size_t wanted = next_byte(script), n = MIN(wanted, script->size);
        struct slice bytes = { (const char *) script->data, n };

        script->data += n;
        script->size -= n;
        return bytes;
}

static uint64_t cookie_of(int fd) {
        uint64_t cookie = 0;
        socklen_t size = sizeof(cookie);

        (void) getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size);
        return cookie;
}

static size_t count_descriptors(void) {
        DIR *dir = opendir("/proc/self/fd");
        size_t n = 0;

        CHECK(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

/* What the daemon's service does in each round, less what is only to be seen from outside. */
static uint64_t on_round(void *userdata) {
        struct world *world = userdata;
        struct server *server = &world->server;
        uint64_t wait_us;

        wait_us = agents_take_turns(world->set);
        (void) cache_expire(server->cache, loop_now(server->loop), 16);
        wait_us = custody_let_go(server->custody) ? 0 : wait_us;
        disposal_set_room(world->disposal, world->setup & SETUP_LITTLE_ROOM ? 0 : 1000);
        disposal_work(world->disposal);
        return wait_us;
}

static void start(struct world *world, uint8_t setup) {
        static const struct siphash_key key = { 1, 2 };
        static char farewell[] = "QUIT\r\n";
        struct cache_limits limits = {
                .connections = setup & SETUP_FEW_CONNECTIONS ? 2 : 1000,
                .bytes = setup & SETUP_FEW_BYTES ? 1000 : 0,
        };
        struct server *server = &world->server;
        sd_event *event;

        world->setup = setup;
        world->copy = -1;
        for (size_t i = 0; i < AGENTS_MAX; i++)
                world->agents[i] = -1;
        world->settings = (struct settings){
                .ttl_limit_us = 100 * USEC_PER_SEC,
                .ipc_timeout_us = 100 * USEC_PER_SEC,
                .request_size_limit = REQUEST_SIZE,
                .share_between_users = setup & SETUP_SHARED,
                .farewell = farewell,
                .farewell_size = setup & SETUP_NO_FAREWELL ? 0 : strlen(farewell),
        };
        server->settings = &world->settings;
        server->scratch = WIRE_BUFFER_INIT(8192);

        CHECK(sd_event_new(&event) >= 0);
        CHECK(loop_new(&server->loop, event) == 0);
        sd_event_unref(event);
        CHECK(cache_new(&server->cache, &key, &limits) == 0);
        server->descriptors = descriptors_new();
        CHECK(server->descriptors);
        CHECK(disposal_new(&world->disposal, server->loop, server->journal, setup & SETUP_WORKERS ? 2 : 0) == 0);
        CHECK(custody_new(&server->custody, server->loop, server->cache, &server->statistics,
                      world->disposal, 2) == 0);
        CHECK(agents_new(&world->set, server, world->disposal) == 0);
        agents_set_limits(world->set,
                &(struct agents_limits){
                        .agents = setup & SETUP_FEW_AGENTS ? 2 : 100,
                        .memory = setup & SETUP_FEW_BYTES ? 1 : 0,
                        .in_flight = 3,
                });
        loop_on_round(server->loop, on_round, world);
}

static void run_round(struct world *world) {
        uint64_t timeout_us = 0, began_us = clock_now(CLOCK_MONOTONIC);

        CHECK(loop_run_once(world->server.loop, &timeout_us) == 0);
        CHECK(clock_now(CLOCK_MONOTONIC) - began_us < ROUND_WORST_US);
        world->wait_us = timeout_us;
}

static void count_connection(void *userdata, struct connection *connection) {
        struct world *world = ((void **) userdata)[0];
        uint64_t *n = ((void **) userdata)[1], cookie = cookie_of(connection->fd);

        (*n)++;
        CHECK(connection->state == CONNECTION_PARKED);
        for (size_t i = 0; i < world->n_sockets; i++)
                CHECK(cookie != world->cookies[i] || !world->received[i] || world->copied[i]);
}

/* The user with this number, from 0. */
static uid_t uid_of(size_t user) {
        return geteuid() == 0 ? (uid_t) (1000 + user) : geteuid();
}

static void count_binding(void *userdata, struct binding *binding) {
        uint64_t *n = userdata;

        (*n)++;
        CHECK((binding->destination->scope.uid >= uid_of(0) &&
                      binding->destination->scope.uid <= uid_of(USERS_MAX - 1)) ||
                binding->destination->scope.uid == (uid_t) -1);
}

/* The books agree with what there is, and what an agent has is not in the cache as well. */
static void check(struct world *world) {
        const struct cache_counts *counts = cache_counts(world->server.cache);
        uint64_t n_connections = 0, n_bindings = 0;
        struct cache_cursor cursor = {};

        while (cache_walk_connections(
                world->server.cache, &cursor, 100, count_connection, (void *[]){ world, &n_connections }))
                ;
        CHECK(n_connections == counts->connections);

        cursor = (struct cache_cursor){};
        while (cache_walk_bindings(world->server.cache, &cursor, 100, count_binding, &n_bindings))
                ;
        CHECK(n_bindings == counts->bindings);
        CHECK(counts->lent <= 2 * world->server.statistics.agents);
        CHECK(counts->endpoints <= counts->connections);
        CHECK(counts->destinations <= counts->bindings);
}

/* From here on, nobody waits for the peers so far. */
static void calm(struct world *world) {
        for (size_t i = 0; i < world->n_sockets; i++)
                if (world->lingers[i]) {
                        closep(&world->peers[i]);
                        world->peers[i] = -1;
                }
}

/* What it has not read may be the last copy of what lingers. */
static void close_agent(struct world *world, size_t i) {
        int unread;

        if (world->agents[i] >= 0 && ioctl(world->agents[i], FIONREAD, &unread) == 0 && unread > 0)
                calm(world);
        closep(&world->agents[i]);
        world->agents[i] = -1;
}

static void open_agent(struct world *world, size_t i, enum dialect dialect, size_t user) {
        bool is_root = geteuid() == 0;
        int pair[2];

        close_agent(world, i);
        /* The peer is who made the pair. */
        if (is_root)
                CHECK(seteuid(uid_of(user)) == 0);
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        if (is_root)
                CHECK(seteuid(0) == 0);
        world->users[i] = (uid_t) user;
        if (world->setup & SETUP_LITTLE_ROOM)
                (void) setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &(int){ 0 }, sizeof(int));
        world->agents[i] = pair[0];
        (void) agents_add(world->set, pair[1], dialect, (struct epoch){});
}

/* Close what may be the last copy without waiting for its peer. */
static void close_at_once(int fd) {
        static const struct linger reset = { 1, 0 };

        (void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        (void) close(fd);
}

/* A connection over TCP; STUFFED: with SO_LINGER and more on its way than its peer takes. */
static void make_tcp(int pair[static 2], bool stuffed) {
        static const struct linger linger = { 1, LINGER_S };
        static const int small = 4096;
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(address);
        char bytes[4096] = {};
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(listener >= 0 && pair[0] >= 0);
        (void) setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
        (void) setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
        CHECK(bind(listener, (struct sockaddr *) &address, size) == 0 && listen(listener, 1) == 0);
        CHECK(getsockname(listener, (struct sockaddr *) &address, &size) == 0);
        CHECK(connect(pair[0], (struct sockaddr *) &address, size) == 0);
        pair[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        CHECK(pair[1] >= 0);
        (void) close(listener);
        if (!stuffed)
                return;

        while (send(pair[0], bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
                ;
        CHECK(setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
}

static bool send_bytes(int socket, struct slice bytes, const int *fds, size_t n_fds) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(DESCRIPTORS_MANY * sizeof(int))];
        } control = {};
        struct iovec iov = { (void *) bytes.data, bytes.size };
        struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (n_fds > 0) {
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
        }
        return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

/* Put a descriptor into a queue through SENDER, which is ours no more, and take HOLDER, at whose end that is, in its place. */
static void put_into(int *fd, int sender, int holder) {
        CHECK(send_bytes(sender, (struct slice){ "x", 1 }, fd, 1));
        (void) close(*fd);
        (void) close(sender);
        *fd = holder;
}

static void nest(int *fd) {
        int pair[2];

        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        put_into(fd, pair[0], pair[1]);
}

/* The same with the queue of one who calls and is not answered. */
static void nest_in_listening(int *fd) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        socklen_t size = sizeof(address.sun_family);
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int caller = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        CHECK(listener >= 0 && caller >= 0);
        CHECK(bind(listener, (struct sockaddr *) &address, size) == 0 && listen(listener, 1) == 0);
        size = sizeof(address);
        CHECK(getsockname(listener, (struct sockaddr *) &address, &size) == 0);
        CHECK(connect(caller, (struct sockaddr *) &address, size) == 0);
        put_into(fd, caller, listener);
}

/* A new connection, the agent's user's. */
static int make_connection(struct world *world, size_t agent, enum kind kind, bool lingers) {
        int pair[2];

        if (kind == KIND_TCP || (kind == KIND_LISTENING && lingers))
                make_tcp(pair, lingers && world->setup & SETUP_WORKERS);
        else
                CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        world->peers[world->n_sockets] = pair[1];
        world->cookies[world->n_sockets] = cookie_of(pair[0]);
        world->lingers[world->n_sockets] = lingers;
        world->sent[world->n_sockets++][world->users[agent]] = true;
        /* Who keeps a copy of one that lingers would not see anybody wait for it. */
        if (!lingers) {
                closep(&world->copy);
                world->copy = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
                world->copied_socket = world->n_sockets - 1;
        }
        if (kind == KIND_LISTENING)
                nest_in_listening(&pair[0]);
        return pair[0];
}

/* A descriptor of some kind to send. Returns whether it is a copy of ours only. */
static bool make_descriptor(struct world *world, size_t agent, enum kind kind, bool lingers, int *ret) {
        int pair[2];

        switch (kind) {
        case KIND_SOCKET:
        case KIND_LISTENING:
        case KIND_TCP:
                if (world->n_sockets == SOCKETS_MAX)
                        break;
                *ret = make_connection(world, agent, kind, lingers);
                return true;
        case KIND_COPY:
                if (world->copy < 0)
                        break;
                world->copied[world->copied_socket] = true;
                world->sent[world->copied_socket][world->users[agent]] = true;
                *ret = fcntl(world->copy, F_DUPFD_CLOEXEC, 0);
                return true;
        case KIND_PIPE:
                CHECK(pipe2(pair, O_CLOEXEC) == 0);
                close(pair[1]);
                *ret = pair[0];
                return true;
        case KIND_EPOLL:
                *ret = epoll_create1(EPOLL_CLOEXEC);
                return true;
        case KIND_DEVICE:
                *ret = open("/dev/null", O_RDWR | O_CLOEXEC);
                return true;
        case KIND_OWN:
                break;
        }

        *ret = world->agents[agent];
        world->is_holding_itself = true;
        return false;
}

static void send_descriptors(struct world *world, size_t agent, struct script *script) {
        unsigned how = next_byte(script), n = how & HOW_MANY, depth = (how & HOW_DEPTH) / 0x20;
        struct slice bytes = next_bytes(script);
        int fds[DESCRIPTORS_MANY];
        bool ours;

        ours = make_descriptor(world, agent, how >> 2 & 7, how & HOW_LINGER, &fds[0]);
        for (; ours && depth > 0; depth--)
                nest(&fds[0]);
        if (n == 0)
                n = how & HOW_LINGER ? DESCRIPTORS_MANY : 1;
        for (unsigned i = 1; i < n; i++)
                fds[i] = fds[0];
        if (!send_bytes(world->agents[agent], bytes, fds, n))
                calm(world);
        if (ours)
                (void) close(fds[0]);
}

static void note_received(struct world *world, size_t agent, int fd) {
        uint64_t cookie = cookie_of(fd);

        for (size_t i = 0; i < world->n_sockets; i++)
                if (world->cookies[i] == cookie) {
                        CHECK(!world->received[i] || world->copied[i]);
                        CHECK(world->sent[i][world->users[agent]] || world->setup & SETUP_SHARED);
                        world->received[i] = true;
                }
}

static bool read_answer(struct world *world, size_t agent) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(8 * sizeof(int))];
        } control;
        char data[4096]; /* of any answer: who stops half-way through one must not use its descriptor */
        struct iovec iov = { data, sizeof(data) };
        struct msghdr message = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        struct cmsghdr *c;

        if (recvmsg(world->agents[agent], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
                return false;

        c = CMSG_FIRSTHDR(&message);
        if (c) {
                int fd;

                /* Never more than one, and of the kind that was saved. */
                CHECK(c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)));
                CHECK(!CMSG_NXTHDR(&message, c));
                memcpy(&fd, CMSG_DATA(c), sizeof(fd));
                note_received(world, agent, fd);
                close_at_once(fd);
        }
        return true;
}

static void peer_acts(struct world *world, unsigned which, unsigned what) {
        int *peer;

        if (world->n_sockets == 0)
                return;

        peer = &world->peers[which % world->n_sockets];
        if (what & 1) {
                (void) send(*peer, "421 bye\r\n", 9, MSG_DONTWAIT | MSG_NOSIGNAL);
        } else {
                closep(peer);
                *peer = -1;
        }
}

static void act(struct world *world, struct script *script) {
        unsigned command = next_byte(script), what;
        size_t agent = command & 3;

        if (world->agents[agent] < 0)
                open_agent(world, agent, DIALECT_POSTFIX, 0);

        switch ((enum action)((command >> 2) % _ACTION_MAX)) {
        case ACTION_SEND:
                (void) send_bytes(world->agents[agent], next_bytes(script), NULL, 0);
                break;
        case ACTION_SEND_DESCRIPTORS:
                send_descriptors(world, agent, script);
                break;
        case ACTION_READ:
                (void) read_answer(world, agent);
                break;
        case ACTION_CLOSE:
                close_agent(world, agent);
                break;
        case ACTION_CONNECT:
                what = next_byte(script);
                open_agent(world, agent, (enum dialect)((what & 15) % _DIALECT_MAX), what / 16 % USERS_MAX);
                break;
        case ACTION_PEER:
                what = next_byte(script);
                peer_acts(world, what >> 1, what);
                break;
        case ACTION_SHUTDOWN:
                (void) shutdown(world->agents[agent], SHUT_WR);
                break;
        case ACTION_LET_GO:
                (void) cache_let_one_go(world->server.cache, DEPARTURE_FLUSHED);
                break;
        default:
                break;
        }
}

/* Run until nobody waits for a turn, and what came of that has been noticed. */
static void settle(struct world *world) {
        do
                run_round(world);
        while (world->wait_us == 0);
        run_round(world);
}

/* Nothing lingers any more, but workers may be late. */
static void await_disposal(struct world *world) {
        while (disposal_waiting(world->disposal) > 0) {
                (void) usleep(1000);
                disposal_hurry(world->disposal);
                run_round(world);
        }
}

/* On leaving there is nothing but the disposal. */
static uint64_t on_last_round(void *userdata) {
        struct world *world = userdata;

        (void) disposal_work(world->disposal);
        return 0;
}

static void stop(struct world *world) {
        struct server *server = &world->server;

        calm(world);
        for (size_t i = 0; i < AGENTS_MAX; i++) {
                while (world->agents[i] >= 0 && read_answer(world, i))
                        settle(world);
                check(world);
                closep(&world->agents[i]);
                settle(world);
        }
        if (!world->is_holding_itself) {
                for (unsigned i = 0; server->statistics.agents > 0 && i < 10000; i++) {
                        await_disposal(world);
                        run_round(world);
                }
                CHECK(server->statistics.agents == 0);
                CHECK(cache_counts(server->cache)->lent == 0);
        }
        check(world);

        /* As on leaving: service.c. */
        loop_on_round(server->loop, on_last_round, world);
        agents_free(world->set);
        while (cache_let_one_go(server->cache, DEPARTURE_FLUSHED))
                ;
        while (custody_let_go(server->custody))
                ;
        custody_free(server->custody);
        await_disposal(world);
        cache_free(server->cache);
        disposal_free(world->disposal);
        descriptors_free(server->descriptors);
        loop_free(server->loop);
        wire_buffer_release(&server->scratch);
        closep(&world->copy);
        for (size_t i = 0; i < world->n_sockets; i++)
                closep(&world->peers[i]);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

/* The end of a worker is for the disposal, not for the fuzzer's own thread, which begins later. */
int LLVMFuzzerInitialize(_unused_ int *argc, _unused_ char ***argv) {
        sigset_t set;

        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGCHLD);
        return sigprocmask(SIG_BLOCK, &set, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct script script = { data, size };
        size_t n_descriptors = count_descriptors();
        struct world world = {};

        start(&world, next_byte(&script));
        while (script.size > 0) {
                act(&world, &script);
                run_round(&world);
        }
        check(&world);
        stop(&world);

        /* The last worker may not have come to its end. */
        for (unsigned i = 0; i < 60000 && count_descriptors() != n_descriptors; i++)
                (void) usleep(1000);
        CHECK(count_descriptors() == n_descriptors);
        return 0;
}
