/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/limits.h"

#include <sys/resource.h>

#include "base/cleanup.h"

/* Standard streams, listening sockets, epoll, timers, signals, the journal, the settings while they are read, one more
 * agent being accepted, and channels to workers. */
#define DESCRIPTORS_OWN UINT64_C(48)

/* Room for the descriptors of one message (SCM_MAX_FD): without it, the kernel closes those that do not fit, and that may
 * wait. A table of less than 1,024 descriptors cannot spare it. */
#define DESCRIPTORS_MESSAGE UINT64_C(253)
#define DESCRIPTORS_ENOUGH  UINT64_C(1024)

/* An agent's socket, and the descriptor that came with an incomplete request. */
#define DESCRIPTORS_AGENT UINT64_C(2)

/* Without agent_limit, agents get a quarter of the rest, up to this number: a busy Postfix has 100 processes, a very busy
 * one 1,000. */
#define AGENTS_PART        4
#define AGENTS_DEFAULT_MAX UINT64_C(1024)

#define LEAVING_PART 32
#define LEAVING_MAX  UINT64_C(1024)

#define CLOSING_PART 16
#define CLOSING_MAX  UINT64_C(4096)
/* The kernel allows as many descriptors in flight as the table has. A restart sends all connections; the rest is for agents,
 * and a single user gets half of that. */
#define IN_FLIGHT_AGENT DESCRIPTORS_AGENT

/* The size of the table if it cannot be found out. */
#define DESCRIPTORS_UNKNOWN UINT64_C(1024)

uint64_t limits_descriptors(void) {
        struct rlimit limit;

        return getrlimit(RLIMIT_NOFILE, &limit) < 0 ? DESCRIPTORS_UNKNOWN : limit.rlim_cur;
}

void limits_raise_for_handover(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return;

        limit.rlim_cur = limit.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &limit);
}

static uint64_t at_least_one(uint64_t n) {
        return MAX(n, UINT64_C(1));
}

struct limits limits_share(uint64_t n_descriptors, uint64_t connections_wanted, uint64_t agents_wanted) {
        uint64_t kept = DESCRIPTORS_OWN + (n_descriptors >= DESCRIPTORS_ENOUGH ? DESCRIPTORS_MESSAGE : 0);
        uint64_t left = n_descriptors > kept ? n_descriptors - kept : 0;
        struct limits limits;

        limits.agents = at_least_one(agents_wanted > 0 ? MIN(agents_wanted, left / 2 / DESCRIPTORS_AGENT)
                                                       : MIN(left / AGENTS_PART, AGENTS_DEFAULT_MAX));
        left -= MIN(left, limits.agents * DESCRIPTORS_AGENT);
        limits.leaving = at_least_one(MIN(left / LEAVING_PART, LEAVING_MAX));
        left -= MIN(left, limits.leaving);
        limits.closing = at_least_one(MIN(left / CLOSING_PART, CLOSING_MAX));
        left -= MIN(left, limits.closing);
        limits.connections = at_least_one(connections_wanted > 0 ? MIN(connections_wanted, left) : left);
        limits.in_flight = limits.agents * IN_FLIGHT_AGENT;
        return limits;
}
