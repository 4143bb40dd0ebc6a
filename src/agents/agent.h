/* agents: one agent: bytes in, bytes out, and where it is in an exchange */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "agents/dialect.h"
#include "cache/cache.h"
#include "daemon/journal.h"
#include "wire/buffer.h"
#include "wire/list.h"
#include "wire/message.h"

/* An agent's input is a sequence of units: attribute lists, and single bytes that carry a descriptor. One unit is worked
 * on at a time, and no other before its answer has gone out; then it is the next agent's turn. So nobody waits for
 * more than one request of anybody else, and no agent makes us keep more than one answer for it.
 *
 * Agents call nobody: they are pulled. agent_receive() or agent_flush() move bytes when the socket is ready,
 * agent_next() yields a unit, agent_answer() answers it, and agent_done() consumes it and says what to wait for. */

struct custody;
struct disposal;

/* What all agents are served with. It must outlive them, and so must what it points to. */
struct agent_context {
        struct journal *journal;
        struct custody *custody;   /* of the connections that are on their way to an agent */
        struct disposal *disposal; /* of the descriptors that agents send and that are not wanted */
};

enum agent_state {
        AGENT_IDLE,   /* a request comes next */
        AGENT_SAVING, /* the byte with the descriptor to save comes next; its request is still in the input */
        AGENT_FINDING, /* the list that asks for the descriptor that was found comes next */
};

/* What an agent needs next. */
enum agent_need {
        AGENT_NEEDS_WORK, /* on a unit */
        AGENT_NEEDS_INPUT,
        AGENT_NEEDS_ROOM, /* it must read first */
        AGENT_NEEDS_TURN, /* there is more in its input */
        AGENT_NEEDS_END,  /* it hung up, or broke the protocol */
};

/* A list, or the byte that comes after it in AGENT_SAVING. */
struct agent_unit {
        struct wire_list list;       /* for the byte: of the request that it belongs to */
        struct wire_passing passing; /* what was passed with it; who keeps the descriptor takes it out */
        size_t size;                 /* bytes in the input, those of the request included */
};

struct agent {
        const struct agent_context *context;
        int fd;
        enum dialect dialect;
        enum agent_state state;
        pid_t pid;
        uid_t uid;

        struct wire_buffer input;
        struct wire_parser parser; /* at the head of the input; AGENT_SAVING: behind the request there */
        /* What was passed to us with the last of the first `passing_end` input bytes. Without a descriptor where one
         * was passed, that was no socket. */
        struct wire_passing passing;
        size_t passing_end;
        bool input_ended;

        struct wire_buffer output; /* what the agent has not yet taken of an answer */
        bool output_has_lent;      /* its first byte takes the lent connection along */
        bool output_ended;         /* the agent takes no more answers */

        struct connection *lent;   /* found, on its way to the agent */
        struct connection *handed; /* sent to the agent, which has not yet shown that it has it */
        bool handed_is_lost;       /* the agent went away without it */

        bool is_served; /* it has had an answer, or whatever its first list deserved */

        /* For the set of all agents. */
        bool is_queued;
        bool is_busy;
        bool is_handing;
        uint32_t events;
        uint64_t busy_since_us;
        TAILQ_ENTRY(agent) by_activity;
        TAILQ_ENTRY(agent) by_turn;
        TAILQ_ENTRY(agent) by_busy;
        TAILQ_ENTRY(agent) by_handing;
};

/* Serve the agent at the other end of a socket, which the agent owns from here on, in every case, and greet it. No list
 * of it may be longer than REQUEST_MAX bytes, no answer longer than ANSWER_MAX. Returns negative errno. */
int agent_new(struct agent **ret, const struct agent_context *context, int fd, enum dialect dialect,
        size_t request_max, size_t answer_max);

/* Close the socket; what was on its way to the agent goes back to the cache if the agent did not get it. */
struct agent *agent_free(struct agent *agent);

/* Read once. Returns negative errno if the agent is to be cut off. */
int agent_receive(struct agent *agent);

/* Send what is left of an answer, or as much of it as the agent takes. Returns negative errno if it takes nothing any
 * more. */
int agent_flush(struct agent *agent);

/* Yield the next unit of what has been read, which is good until agent_done(), with AGENT_NEEDS_WORK. Where there is none
 * yet, or an answer is to be sent first, that is what the agent needs. */
enum agent_need agent_next(struct agent *agent, struct agent_unit *ret);

/* The unit has been worked on: consume it, and close the descriptor that nobody has taken out of it. */
enum agent_need agent_done(struct agent *agent, struct agent_unit *unit);

/* Is it in the middle of an exchange? */
static inline bool agent_is_busy(const struct agent *agent) {
        return agent->state != AGENT_IDLE || wire_buffer_fill(&agent->input) > 0 ||
                wire_buffer_fill(&agent->output) > 0;
}

/* May it be cut off without harm: it has been served, and nothing is under way in either direction? */
bool agent_is_at_rest(const struct agent *agent);

/* If the agent has taken the descriptor that was sent to it, we keep our copy no longer. */
void agent_check_handed(struct agent *agent);

/* Send an answer, with the lent connection attached if WITH_LENT. What the agent does not take now is kept for later.
 * Returns -EPIPE and the like if it takes nothing any more, -ETOOMANYREFS if the descriptor cannot travel. */
int agent_answer(struct agent *agent, const void *data, size_t size, bool with_lent);

/* What journal lines about this agent carry; LABEL may be empty. */
struct journal_subject agent_subject(const struct agent *agent, struct slice label);
