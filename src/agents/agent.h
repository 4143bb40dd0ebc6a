/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: one agent: bytes in, bytes out, and its place in an exchange */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "agents/dialect.h"
#include "agents/user.h"
#include "cache/cache.h"
#include "daemon/journal.h"
#include "epochs/epoch.h"
#include "wire/buffer.h"
#include "wire/list.h"
#include "wire/message.h"

/* An agent's input is a sequence of units: attribute lists, and single bytes that carry a descriptor. One unit is
 * processed at a time, and the next one only after its answer was sent; then it is the next agent's turn. So an agent waits
 * for at most one request of each other agent, and we keep at most one answer for each.
 *
 * This file calls nothing above it: agents are pulled. agent_receive() and agent_flush() move bytes when the socket is
 * ready, agent_next() yields a unit, agent_answer() answers it, and agent_done() consumes it and returns the next need. */

struct custody;
struct disposal;

/* Shared by all agents. It must outlive them, and so must everything it points to. */
struct agent_context {
        struct journal *journal;
        struct custody *custody;   /* for connections on their way to an agent */
        struct disposal *disposal; /* for unexpected descriptors from agents */
        struct users *users;
};

enum agent_state {
        AGENT_IDLE,    /* expects a request */
        AGENT_SAVING,  /* expects the byte with the descriptor to save; the request is still in the input */
        AGENT_FINDING, /* expects the list that asks for the descriptor that was found */
};

/* The next need of an agent. */
enum agent_need {
        AGENT_NEEDS_WORK, /* there is a unit to process */
        AGENT_NEEDS_INPUT,
        AGENT_NEEDS_ROOM, /* it must read first */
        AGENT_NEEDS_TURN, /* there is more in its input */
        AGENT_NEEDS_END,  /* it hung up, or broke the protocol */
};

/* A list, or the byte that comes after it in AGENT_SAVING. */
struct agent_unit {
        struct wire_list list;       /* for the byte: of the request that it belongs to */
        struct wire_passing passing; /* the descriptor with it; whoever keeps the descriptor takes it out */
        size_t size;                 /* bytes in the input, including those of the request */
};

struct agent {
        const struct agent_context *context;
        int fd;
        enum dialect dialect;
        enum agent_state state;
        pid_t pid;
        uid_t uid;
        struct user *user;  /* of this uid */
        struct epoch epoch; /* the set of all agents gives it one */

        struct wire_buffer input;
        struct wire_parser parser; /* at the head of the input; AGENT_SAVING: behind the request there */
        /* The descriptor that came with the last of the first `passing_end` input bytes. If one was passed and there is
         * none here, it was not a socket. */
        struct wire_passing passing;
        size_t passing_end;
        bool input_ended;

        struct wire_buffer output; /* the part of an answer that is not sent yet */
        bool output_has_lent;      /* send the lent connection with its first byte */
        bool output_ended;         /* the agent takes no more answers */

        struct connection *lent;   /* found, on its way to the agent */
        struct connection *handed; /* sent to the agent, which has not confirmed it yet */
        bool handed_is_lost;       /* the agent went away without it */
        struct flight flight;      /* all that were sent and may not have arrived */

        struct cache_taking taking; /* what it found last, until it parks one, looks again, or hangs up */
        bool is_looking;            /* the lookups of the delivery at hand have all missed so far */
        bool is_served;             /* its first list was processed */

        /* For the set of all agents. */
        bool is_queued;
        bool is_busy;
        bool is_handing;
        bool is_held;
        uint32_t events;
        uint64_t busy_since_us;
        uint64_t wait_until_us; /* for its next word, when the daemon exits */
        size_t memory;          /* of its buffers, as it is on the account of its user */
        TAILQ_ENTRY(agent) siblings;
        TAILQ_ENTRY(agent) by_activity; /* of its user, and so is: */
        TAILQ_ENTRY(agent) by_memory;
        TAILQ_ENTRY(agent) by_turn;
        TAILQ_ENTRY(agent) by_busy;
        TAILQ_ENTRY(agent) by_handing;
        TAILQ_ENTRY(agent) by_held;
};

/* Serve the agent at the other end of a socket, and greet it. Takes the socket, even if it fails. A list has at most
 * REQUEST_MAX bytes, an answer at most ANSWER_MAX. Returns negative errno. */
int agent_new(struct agent **ret, const struct agent_context *context, int fd, enum dialect dialect,
        size_t request_max, size_t answer_max);

/* Close the socket. A connection on its way to the agent goes back to the cache if the agent did not receive it. */
struct agent *agent_free(struct agent *agent);

/* Return whether it may send more: too many descriptors that its user has passed may still wait to be closed. */
bool agent_may_send(const struct agent *agent);

/* Read once. Returns negative errno if the agent must be disconnected. */
int agent_receive(struct agent *agent);

/* Send the rest of an answer, or as much of it as possible. Returns negative errno if the agent is gone. */
int agent_flush(struct agent *agent);

/* Return AGENT_NEEDS_WORK and the next unit in the input, valid until agent_done(). If there is none yet, or an answer must
 * be sent first, return that need. */
enum agent_need agent_next(struct agent *agent, struct agent_unit *ret);

/* Consume a unit after it was processed, and close its descriptor if nobody has taken it out. */
enum agent_need agent_done(struct agent *agent, struct agent_unit *unit);

/* Return whether it is in the middle of an exchange. */
static inline bool agent_is_busy(const struct agent *agent) {
        return agent->state != AGENT_IDLE || wire_buffer_fill(&agent->input) > 0 ||
                wire_buffer_fill(&agent->output) > 0;
}

/* Return the memory that its buffers take beyond what every agent may have, in bytes. */
size_t agent_memory(const struct agent *agent);

/* Return whether it has sent something that was not read yet. */
bool agent_has_unread(const struct agent *agent);

/* Return whether it can be disconnected without harm: it has been served, and nothing is on its way to or from it. */
bool agent_is_at_rest(const struct agent *agent);

/* Close our copy of the descriptor that was sent to the agent, if the agent has received it. */
void agent_check_handed(struct agent *agent);

/* Send an answer, with the lent connection attached if WITH_LENT. The part that cannot be sent now is kept for later.
 * Returns -EPIPE and the like if the agent is gone, -ETOOMANYREFS if too many descriptors are in flight. */
int agent_answer(struct agent *agent, const void *data, size_t size, bool with_lent);

/* Return the fields for journal lines about this agent; LABEL may be empty. */
struct journal_subject agent_subject(const struct agent *agent, struct slice label);
