/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agents/agents.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "agents/agent.h"
#include "agents/exchange.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "custody/disposal.h"
#include "daemon/timer.h"

/* After a hand-over we keep our copy of the descriptor until the agent has received its own. The next bytes from the agent
 * show that. If none come, a check of its socket's queue does: first after this time, then at growing intervals. */
#define HANDING_CHECK_US     (UINT64_C(20) * USEC_PER_MSEC)
#define HANDING_CHECK_MAX_US (UINT64_C(2) * USEC_PER_SEC)

/* The number of agents to check at a time. If none of them has read, the interval doubles: agents that never read must not
 * keep us busy. */
#define HANDING_CHECKS 64

/* When the daemon exits, an agent in mid-exchange has this much time for its next word. An honest one needs far less. All others wait
 * for the next process meanwhile, and an agent that is disconnected asks that process again. */
#define SILENCE_US (UINT64_C(20) * USEC_PER_MSEC)

/* How often to check meanwhile whether agents have read what was sent to them. */
#define LEAVING_CHECK_US (UINT64_C(2) * USEC_PER_MSEC)

struct agents {
        struct server *server;
        struct agent_context context;
        struct users users;
        struct agents_limits limits;
        struct agent_list all;
        struct agent_list by_turn;    /* in line for a turn */
        struct agent_list by_busy;    /* in the middle of an exchange, for longest first */
        struct agent_list by_handing; /* were sent a connection, and have not shown that they received it */
        struct agent_list by_held;    /* not read from: their user has passed too many descriptors */
        uint64_t held_at_progress;    /* of the disposal, when they were last checked */
        struct loop_timer busy_timer;
        struct loop_timer handing_timer;
        uint64_t handing_check_us;
        bool is_leaving;
};

/* Charge SIZE bytes of buffers to the user of an agent, instead of its former size. */
static void note_memory(struct agents *agents, struct agent *agent, size_t size) {
        struct user *user = agent->user;

        if (size == agent->memory)
                return;

        if (agent->memory == 0)
                TAILQ_INSERT_TAIL(&user->by_memory, agent, by_memory);
        if (size == 0)
                TAILQ_REMOVE(&user->by_memory, agent, by_memory);
        account_charge(agents->users.accounts, user->account, ACCOUNT_BUFFERS, size);
        account_discharge(agents->users.accounts, user->account, ACCOUNT_BUFFERS, agent->memory);
        agent->memory = size;
}

_cold_ static void drop(struct agents *agents, struct agent *agent) {
        TAILQ_REMOVE(&agents->all, agent, siblings);
        TAILQ_REMOVE(&agent->user->by_activity, agent, by_activity);
        note_memory(agents, agent, 0);
        if (agent->is_queued)
                TAILQ_REMOVE(&agents->by_turn, agent, by_turn);
        if (agent->is_busy)
                TAILQ_REMOVE(&agents->by_busy, agent, by_busy);
        if (agent->is_handing)
                TAILQ_REMOVE(&agents->by_handing, agent, by_handing);
        if (agent->is_held)
                TAILQ_REMOVE(&agents->by_held, agent, by_held);
        agents->server->statistics.total.deliveries_missed += agent->is_looking;
        exchange_used_up(agents->server, agent);
        agents->server->statistics.agents--;
        account_discharge(agents->users.accounts, agent->user->account, ACCOUNT_AGENTS, 1);
        loop_remove(agents->server->loop, agent->fd, agent);
        agent_free(agent);
        if (!TAILQ_EMPTY(&agents->users.alone) && !loop_timer_is_set(&agents->handing_timer))
                loop_timer_set(&agents->handing_timer,
                        usec_add(loop_now(agents->server->loop), agents->handing_check_us));
}

static uint64_t busy_until(const struct agents *agents, const struct agent *agent) {
        return usec_add(agent->busy_since_us, agents->server->settings->ipc_timeout_us);
}

static void note_busy(struct agents *agents, struct agent *agent) {
        bool is_busy = agent_is_busy(agent);

        if (is_busy == agent->is_busy)
                return;

        agent->is_busy = is_busy;
        if (!is_busy) {
                /* Moving the timer would cost a call for each exchange: its handler finds the agent that is due. */
                TAILQ_REMOVE(&agents->by_busy, agent, by_busy);
                return;
        }

        agent->busy_since_us = loop_now(agents->server->loop);
        TAILQ_INSERT_TAIL(&agents->by_busy, agent, by_busy);
        if (!loop_timer_is_set(&agents->busy_timer))
                loop_timer_set(&agents->busy_timer, busy_until(agents, agent));
}

static inline void note_handing(struct agents *agents, struct agent *agent) {
        bool is_handing = agent->handed != NULL;

        if (is_handing == agent->is_handing)
                return;

        agent->is_handing = is_handing;
        if (!is_handing) {
                TAILQ_REMOVE(&agents->by_handing, agent, by_handing);
                return;
        }

        /* The newest are checked first: they have most likely read. */
        TAILQ_INSERT_HEAD(&agents->by_handing, agent, by_handing);
        if (loop_timer_is_set(&agents->handing_timer) && agents->handing_check_us == HANDING_CHECK_US)
                return;

        agents->handing_check_us = HANDING_CHECK_US;
        loop_timer_set(&agents->handing_timer, usec_add(loop_now(agents->server->loop), HANDING_CHECK_US));
}

static void note_queued(struct agents *agents, struct agent *agent, bool is_queued) {
        if (is_queued == agent->is_queued)
                return;

        agent->is_queued = is_queued;
        if (is_queued)
                TAILQ_INSERT_TAIL(&agents->by_turn, agent, by_turn);
        else
                TAILQ_REMOVE(&agents->by_turn, agent, by_turn);
}

/* Arrange for the next need of an agent. */
static void arrange(struct agents *agents, struct agent *agent, enum agent_need need) {
        uint32_t events = need == AGENT_NEEDS_ROOM ? EPOLLOUT : EPOLLIN;

        if (need == AGENT_NEEDS_END) {
                drop(agents, agent);
                return;
        }

        if (events != agent->events) {
                if (loop_modify(agents->server->loop, agent->fd, LOOP_AGENT, agent, events) < 0) {
                        drop(agents, agent);
                        return;
                }
                agent->events = events;
        }

        note_queued(agents, agent, need == AGENT_NEEDS_TURN);
        note_busy(agents, agent);
        note_handing(agents, agent);
        note_memory(agents, agent, agent_memory(agent));
}

/* Process one unit of an agent's input, and arrange for its next need. R is the result of moving its bytes: after a failure,
 * disconnect it. */
static void work(struct agents *agents, struct agent *agent, int r) {
        enum agent_need need = AGENT_NEEDS_END;
        struct agent_unit unit;

        if (r >= 0)
                need = agent_next(agent, &unit);
        if (need == AGENT_NEEDS_WORK) {
                r = exchange_unit(agents->server, agent, &unit);
                need = agent_done(agent, &unit);
        }
        arrange(agents, agent, r < 0 ? AGENT_NEEDS_END : need);
}

/* Stop reading from an agent, or start again. */
static void hold(struct agents *agents, struct agent *agent, bool is_held) {
        agent->events = is_held ? 0 : EPOLLIN;
        if (loop_modify(agents->server->loop, agent->fd, LOOP_AGENT, agent, agent->events) < 0) {
                drop(agents, agent);
                return;
        }

        agent->is_held = is_held;
        if (is_held)
                TAILQ_INSERT_TAIL(&agents->by_held, agent, by_held);
        else
                TAILQ_REMOVE(&agents->by_held, agent, by_held);
}

static void release_held(struct agents *agents) {
        uint64_t progress = disposal_progress(agents->context.disposal);
        struct agent *agent, *next;

        if (progress == agents->held_at_progress)
                return;

        agents->held_at_progress = progress;
        for (agent = TAILQ_FIRST(&agents->by_held); agent; agent = next) {
                next = TAILQ_NEXT(agent, by_held);
                if (agent_may_send(agent))
                        hold(agents, agent, false);
        }
}

static void on_ready(void *userdata, void *object, _unused_ uint32_t events) {
        struct agents *agents = userdata;
        struct agent *agent = object;

        /* Units that were read are processed before more is read. */
        if (agent->is_queued)
                return;

        /* We wait for no event of a held agent, so this is its end. */
        if (agent->is_held) {
                drop(agents, agent);
                return;
        }

        if (agent->events & EPOLLIN && !agent_may_send(agent)) {
                hold(agents, agent, true);
                return;
        }

        if (TAILQ_NEXT(agent, by_activity)) {
                TAILQ_REMOVE(&agent->user->by_activity, agent, by_activity);
                TAILQ_INSERT_TAIL(&agent->user->by_activity, agent, by_activity);
        }
        work(agents, agent, agent->events & EPOLLOUT ? agent_flush(agent) : agent_receive(agent));
}

/* Buffers exceed agent_memory_limit: disconnect the agent that has had large ones for longest, of the user who has most of
 * them. The only agent with large buffers stays. */
_cold_ static void free_memory(struct agents *agents) {
        struct accounts *accounts = agents->users.accounts;

        while (accounts->total[ACCOUNT_BUFFERS] > agents->limits.memory) {
                struct user *user = users_payer(&agents->users, ACCOUNT_BUFFERS, NULL);
                struct agent *agent = TAILQ_FIRST(&user->by_memory);
                struct journal_subject subject = agent_subject(agent, (struct slice){});

                if (agent->memory == accounts->total[ACCOUNT_BUFFERS])
                        break;
                journal_say(agents->server->journal, AGENT_MEMORY, &subject,
                        "agent_memory_limit (%" PRIu64 " bytes) reached: disconnecting agent %i of user %u, "
                        "which has been in the middle of a large request or answer for longest.",
                        agents->limits.memory, (int) agent->pid, agent->uid);
                agents->server->statistics.total.agents_dropped++;
                drop(agents, agent);
        }
}

uint64_t agents_take_turns(struct agents *agents) {
        struct agent *last, *agent = NULL;

        if (!TAILQ_EMPTY(&agents->by_held))
                release_held(agents);
        if (agents->limits.memory > 0 &&
                agents->users.accounts->total[ACCOUNT_BUFFERS] > agents->limits.memory)
                free_memory(agents);

        if (TAILQ_EMPTY(&agents->by_turn))
                return USEC_INFINITY;

        last = TAILQ_LAST(&agents->by_turn, agent_list);
        /* One unit for each agent; an agent that needs another turn goes to the end of the line. */
        while (agent != last) {
                agent = TAILQ_FIRST(&agents->by_turn);
                note_queued(agents, agent, false);
                work(agents, agent, 0);
        }

        return TAILQ_EMPTY(&agents->by_turn) ? USEC_INFINITY : 0;
}

static void on_busy_timer(void *userdata) {
        struct agents *agents = userdata;
        uint64_t now = clock_now(CLOCK_BOOTTIME);
        struct agent *agent;

        while ((agent = TAILQ_FIRST(&agents->by_busy)) && busy_until(agents, agent) <= now) {
                struct journal_subject subject = agent_subject(agent, (struct slice){});

                journal_say(agents->server->journal, AGENT_STUCK, &subject,
                        "Disconnected agent %i of user %u: it stopped in the middle of an exchange for "
                        "longer than ipc_timeout.",
                        (int) agent->pid, agent->uid);
                agents->server->statistics.total.agents_dropped++;
                drop(agents, agent);
        }

        if (agent)
                loop_timer_set(&agents->busy_timer, busy_until(agents, agent));
}

static void on_handing_timer(void *userdata) {
        struct agents *agents = userdata;
        struct agent *agent, *last = TAILQ_LAST(&agents->by_handing, agent_list);
        bool is_alone = users_sweep(&agents->users), is_news = false;

        for (unsigned i = 0; i < HANDING_CHECKS && (agent = TAILQ_FIRST(&agents->by_handing)); i++) {
                agent_check_handed(agent);
                is_news = is_news || !agent->handed;
                note_handing(agents, agent);
                if (agent->is_handing) {
                        TAILQ_REMOVE(&agents->by_handing, agent, by_handing);
                        TAILQ_INSERT_TAIL(&agents->by_handing, agent, by_handing);
                }
                if (agent == last)
                        break;
        }

        agents->handing_check_us =
                is_news ? HANDING_CHECK_US : MIN(2 * agents->handing_check_us, HANDING_CHECK_MAX_US);
        if (!TAILQ_EMPTY(&agents->by_handing) || is_alone)
                loop_timer_set(&agents->handing_timer,
                        usec_add(clock_now(CLOCK_BOOTTIME), agents->handing_check_us));
}

int agents_new(struct agents **ret, struct server *server, struct disposal *disposal) {
        struct agents *agents;
        int r;

        agents = calloc(1, sizeof(*agents));
        if (!agents)
                return -ENOMEM;

        agents->server = server;
        agents->handing_check_us = HANDING_CHECK_US;
        users_init(&agents->users, cache_accounts(server->cache), disposal);
        agents->context =
                (struct agent_context){ server->journal, server->custody, disposal, &agents->users };
        TAILQ_INIT(&agents->all);
        TAILQ_INIT(&agents->by_turn);
        TAILQ_INIT(&agents->by_busy);
        TAILQ_INIT(&agents->by_handing);
        TAILQ_INIT(&agents->by_held);

        r = loop_timer_init(&agents->busy_timer, server->loop, on_busy_timer, agents);
        if (r >= 0)
                r = loop_timer_init(&agents->handing_timer, server->loop, on_handing_timer, agents);
        if (r < 0) {
                agents_free(agents);
                return r;
        }

        loop_on_ready(server->loop, LOOP_AGENT, on_ready, agents);
        *ret = agents;
        return 0;
}

struct agents *agents_free(struct agents *agents) {
        struct agent *agent;

        if (!agents)
                return NULL;

        while ((agent = TAILQ_FIRST(&agents->all)))
                drop(agents, agent);
        users_end(&agents->users);
        loop_timer_release(&agents->busy_timer);
        loop_timer_release(&agents->handing_timer);
        free(agents);
        return NULL;
}

static void note_word(struct agents *agents, struct agent *agent) {
        agent->wait_until_us = usec_add(loop_now(agents->server->loop), SILENCE_US);
}

static void on_ready_leaving(void *userdata, void *object, uint32_t events) {
        note_word(userdata, object);
        on_ready(userdata, object, events);
}

void agents_leave(struct agents *agents) {
        struct agent *agent;

        agents->is_leaving = true;
        TAILQ_FOREACH (agent, &agents->all, siblings)
                note_word(agents, agent);
        loop_on_ready(agents->server->loop, LOOP_AGENT, on_ready_leaving, agents);
}

/* Is an agent to be waited for? It has time left, or has sent what was not read yet; the latter does not count if it does not read
 * its answers, or if too many of its descriptors wait to be closed. */
static bool is_going_on(struct agents *agents, const struct agent *agent) {
        return agent->wait_until_us > loop_now(agents->server->loop) || agent->is_queued ||
                (agent->events & EPOLLIN && agent_has_unread(agent));
}

uint64_t agents_dismiss(struct agents *agents) {
        uint64_t now_us = loop_now(agents->server->loop), wait_us = USEC_INFINITY;
        struct agent *agent, *next;

        for (agent = TAILQ_FIRST(&agents->all); agent; agent = next) {
                next = TAILQ_NEXT(agent, siblings);
                agent_check_handed(agent);
                note_handing(agents, agent);
                if (agent_is_at_rest(agent) || !is_going_on(agents, agent))
                        drop(agents, agent);
                else if (agent->handed)
                        wait_us = MIN(wait_us, LEAVING_CHECK_US);
                else if (agent->wait_until_us > now_us)
                        wait_us = MIN(wait_us, agent->wait_until_us - now_us);
        }

        return wait_us;
}

/* Make room for one more agent of USER: at the limit, disconnect the agent that has been idle longest, of the user who then
 * has most. */
static void make_room(struct agents *agents, struct user *user) {
        struct server *server = agents->server;

        while (agents->limits.agents > 0 && server->statistics.agents >= agents->limits.agents) {
                struct user *payer = users_payer(&agents->users, ACCOUNT_AGENTS, user);

                journal_say(server->journal, AGENT_LIMIT, NULL,
                        "agent_limit (%" PRIu64
                        ") reached: disconnecting the agent of user %u that has been idle longest.",
                        server->statistics.agents, payer->account->uid);
                server->statistics.total.agents_dropped++;
                drop(agents, TAILQ_FIRST(&payer->by_activity));
        }
}

int agents_add(struct agents *agents, int fd, enum dialect dialect, struct epoch epoch) {
        struct server *server = agents->server;
        struct agent *agent;
        int r;

        r = agent_new(&agent, &agents->context, fd, dialect, server->settings->request_size_limit,
                server->scratch.limit);
        if (r < 0)
                return r;

        make_room(agents, agent->user);

        agent->epoch = epoch;
        if (agents->is_leaving)
                note_word(agents, agent);
        /* First send the rest of the greeting. */
        agent->events = wire_buffer_fill(&agent->output) > 0 ? EPOLLOUT : EPOLLIN;
        r = loop_add(server->loop, agent->fd, LOOP_AGENT, agent, agent->events);
        if (r < 0) {
                agent_free(agent);
                return r;
        }

        server->statistics.agents++;
        account_charge(agents->users.accounts, agent->user->account, ACCOUNT_AGENTS, 1);
        TAILQ_INSERT_TAIL(&agents->all, agent, siblings);
        TAILQ_INSERT_TAIL(&agent->user->by_activity, agent, by_activity);
        server->statistics.total.agents_accepted++;
        return 0;
}

void agents_set_limits(struct agents *agents, const struct agents_limits *limits) {
        agents->limits = *limits;
        agents->users.in_flight_max = limits->in_flight;
}

void agents_reschedule(struct agents *agents) {
        const struct agent *first = TAILQ_FIRST(&agents->by_busy);

        if (first)
                loop_timer_set(&agents->busy_timer, busy_until(agents, first));
}
