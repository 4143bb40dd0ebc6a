#include "agents/agents.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "agents/agent.h"
#include "agents/server.h"
#include "base/cleanup.h"
#include "base/clock.h"

/* After a hand-over our copy of the descriptor is kept until the agent shows that it has its own: by what it says next, or,
 * if it says nothing, by what this look at its socket's queue shows. */
#define HANDING_CHECK_US     (UINT64_C(20) * USEC_PER_MSEC)
#define HANDING_CHECK_MAX_US (UINT64_C(2) * USEC_PER_SEC)

/* An agent that reads nothing would be looked at for ever: so many have a look each time, and where that shows nothing new,
 * the next time is further away. */
#define HANDING_CHECKS 64

TAILQ_HEAD(agent_list, agent);

struct agents {
        struct server *server;
        size_t n_agents;
        size_t limit;
        struct agent_list by_activity; /* who has said nothing for longest is first */
        struct agent_list by_turn;     /* in line for a turn */
        struct agent_list by_busy;     /* in the middle of an exchange, for longest first */
        struct agent_list by_handing; /* with a connection handed to them and not yet seen to have arrived */
        sd_event_source *busy_timer;
        sd_event_source *handing_timer;
        uint64_t handing_check_us;
        bool busy_timer_is_set;
        bool handing_timer_is_set;
};

_cold_ static void drop(struct agents *agents, struct agent *agent) {
        TAILQ_REMOVE(&agents->by_activity, agent, by_activity);
        if (agent->is_queued)
                TAILQ_REMOVE(&agents->by_turn, agent, by_turn);
        if (agent->is_busy)
                TAILQ_REMOVE(&agents->by_busy, agent, by_busy);
        if (agent->is_handing)
                TAILQ_REMOVE(&agents->by_handing, agent, by_handing);
        agents->n_agents--;
        loop_remove(agents->server->loop, agent->fd, agent);
        agent_free(agent);
}

_cold_ static bool set_timer(struct agents *agents, sd_event_source *timer, uint64_t at_us) {
        if (sd_event_source_set_time(timer, at_us) < 0 ||
                sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT) < 0)
                return false;

        loop_touch(agents->server->loop);
        return true;
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
                /* The timer is left alone: it finds out when it comes. */
                TAILQ_REMOVE(&agents->by_busy, agent, by_busy);
                return;
        }

        agent->busy_since_us = loop_now(agents->server->loop);
        TAILQ_INSERT_TAIL(&agents->by_busy, agent, by_busy);
        if (!agents->busy_timer_is_set)
                agents->busy_timer_is_set = set_timer(agents, agents->busy_timer, busy_until(agents, agent));
}

static void note_handing(struct agents *agents, struct agent *agent) {
        bool is_handing = agent->handed != NULL;

        if (is_handing == agent->is_handing)
                return;

        agent->is_handing = is_handing;
        if (!is_handing) {
                TAILQ_REMOVE(&agents->by_handing, agent, by_handing);
                return;
        }

        /* The newest are looked at first: they are most likely to have read. */
        TAILQ_INSERT_HEAD(&agents->by_handing, agent, by_handing);
        if (agents->handing_timer_is_set && agents->handing_check_us == HANDING_CHECK_US)
                return;

        agents->handing_check_us = HANDING_CHECK_US;
        agents->handing_timer_is_set = set_timer(
                agents, agents->handing_timer, usec_add(loop_now(agents->server->loop), HANDING_CHECK_US));
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

/* Arrange for what an agent needs next. */
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
}

static void on_ready(void *userdata, void *object, _unused_ uint32_t events) {
        struct agents *agents = userdata;
        struct agent *agent = object;

        /* What was read is worked off first. */
        if (agent->is_queued)
                return;

        if (TAILQ_NEXT(agent, by_activity)) {
                TAILQ_REMOVE(&agents->by_activity, agent, by_activity);
                TAILQ_INSERT_TAIL(&agents->by_activity, agent, by_activity);
        }
        arrange(agents, agent, agent->events & EPOLLOUT ? agent_flush(agent) : agent_receive(agent));
}

uint64_t agents_take_turns(struct agents *agents) {
        struct agent *last, *agent = NULL;

        if (TAILQ_EMPTY(&agents->by_turn))
                return USEC_INFINITY;

        last = TAILQ_LAST(&agents->by_turn, agent_list);
        /* One unit each; who needs another turn goes behind the last one. */
        while (agent != last) {
                agent = TAILQ_FIRST(&agents->by_turn);
                note_queued(agents, agent, false);
                arrange(agents, agent, agent_work(agent));
        }

        return TAILQ_EMPTY(&agents->by_turn) ? USEC_INFINITY : 0;
}

static int on_busy_timer(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *userdata) {
        struct agents *agents = userdata;
        uint64_t now = clock_now(CLOCK_BOOTTIME);
        struct agent *agent;

        agents->busy_timer_is_set = false;
        while ((agent = TAILQ_FIRST(&agents->by_busy)) && busy_until(agents, agent) <= now) {
                struct journal_subject subject = agent_subject(agent, (struct slice){});

                journal_say(agents->server->journal, AGENT_STUCK, &subject,
                        "Cut off agent %i of user %u: it stopped in the middle of an exchange, longer ago "
                        "than ipc_timeout.",
                        (int) agent->pid, agent->uid);
                agents->server->statistics.total.agents_dropped++;
                drop(agents, agent);
        }

        if (agent)
                agents->busy_timer_is_set = set_timer(agents, agents->busy_timer, busy_until(agents, agent));
        return 0;
}

static int on_handing_timer(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *userdata) {
        struct agents *agents = userdata;
        struct agent *agent, *last = TAILQ_LAST(&agents->by_handing, agent_list);
        bool is_news = false;

        agents->handing_timer_is_set = false;
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
        if (!TAILQ_EMPTY(&agents->by_handing))
                agents->handing_timer_is_set = set_timer(agents, agents->handing_timer,
                        usec_add(clock_now(CLOCK_BOOTTIME), agents->handing_check_us));
        return 0;
}

static int add_timer(struct agents *agents, sd_event_source **ret, sd_event_time_handler_t fn) {
        int r;

        r = sd_event_add_time(
                loop_event(agents->server->loop), ret, CLOCK_BOOTTIME, 0, USEC_PER_MSEC, fn, agents);
        return r < 0 ? r : sd_event_source_set_enabled(*ret, SD_EVENT_OFF);
}

int agents_new(struct agents **ret, struct server *server) {
        struct agents *agents;
        int r;

        agents = calloc(1, sizeof(*agents));
        if (!agents)
                return -ENOMEM;

        agents->server = server;
        TAILQ_INIT(&agents->by_activity);
        TAILQ_INIT(&agents->by_turn);
        TAILQ_INIT(&agents->by_busy);
        TAILQ_INIT(&agents->by_handing);

        r = add_timer(agents, &agents->busy_timer, on_busy_timer);
        if (r >= 0)
                r = add_timer(agents, &agents->handing_timer, on_handing_timer);
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

        while ((agent = TAILQ_FIRST(&agents->by_activity)))
                drop(agents, agent);
        sd_event_source_disable_unref(agents->busy_timer);
        sd_event_source_disable_unref(agents->handing_timer);
        free(agents);
        return NULL;
}

bool agents_drop_one(struct agents *agents) {
        struct agent *agent = TAILQ_FIRST(&agents->by_activity);

        if (!agent)
                return false;

        agents->server->statistics.total.agents_dropped++;
        drop(agents, agent);
        return true;
}

size_t agents_dismiss(struct agents *agents) {
        struct agent *agent, *next;

        for (agent = TAILQ_FIRST(&agents->by_activity); agent; agent = next) {
                next = TAILQ_NEXT(agent, by_activity);
                if (agent_is_at_rest(agent))
                        drop(agents, agent);
        }

        return agents->n_agents;
}

int agents_add(struct agents *agents, int fd, enum dialect dialect) {
        struct server *server = agents->server;
        struct agent *agent;
        int r;

        while (agents->limit > 0 && agents->n_agents >= agents->limit) {
                journal_say(server->journal, AGENT_LIMIT, NULL,
                        "As many agents are connected as may be (agent_limit), %zu: the one silent for "
                        "longest makes room.",
                        agents->n_agents);
                agents_drop_one(agents);
        }

        r = agent_new(&agent, server, fd, dialect);
        if (r < 0)
                return r;

        /* A greeting that was not taken at once comes first. */
        agent->events = wire_buffer_fill(&agent->output) > 0 ? EPOLLOUT : EPOLLIN;
        r = loop_add(server->loop, agent->fd, LOOP_AGENT, agent, agent->events);
        if (r < 0) {
                agent_free(agent);
                return r;
        }

        agents->n_agents++;
        TAILQ_INSERT_TAIL(&agents->by_activity, agent, by_activity);
        server->statistics.total.agents_accepted++;
        return 0;
}

size_t agents_count(const struct agents *agents) {
        return agents->n_agents;
}

void agents_set_limit(struct agents *agents, size_t limit) {
        agents->limit = limit;
}
