/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agents/agent.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "custody/disposal.h"
#include "custody/watch.h"

/* The bytes to receive at once. Most requests are shorter. */
#define RECEIVE_SIZE ((size_t) 1024)

/* After a request of at most request_size_limit bytes comes the byte that carries its descriptor. */
#define DESCRIPTOR_BYTE ((size_t) 1)

/* An input buffer larger than this is freed when it is empty. */
#define INPUT_KEPT ((size_t) 4096)

/* Buffers of at most this size are not counted: agent_limit already bounds them. */
#define MEMORY_FREE INPUT_KEPT

int agent_new(struct agent **ret, const struct agent_context *context, int fd, enum dialect dialect,
        size_t request_max, size_t answer_max) {
        struct slice greeting = dialect_greeting(dialect);
        struct ucred credentials = { .uid = (uid_t) -1 };
        socklen_t size = sizeof(credentials);
        struct agent *agent;
        int r;

        agent = calloc(1, sizeof(*agent));
        if (!agent) {
                disposal_close(context->disposal, 0, DISPOSAL_SOCKET, fd);
                return -ENOMEM;
        }

        *agent = (struct agent){
                .context = context,
                .fd = fd,
                .dialect = dialect,
                .passing.fd = -1,
                .input = WIRE_BUFFER_INIT(request_max + DESCRIPTOR_BYTE),
                .output = WIRE_BUFFER_INIT(answer_max),
        };

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0) {
                r = -errno;
                goto fail;
        }
        agent->pid = credentials.pid;
        agent->uid = credentials.uid;
        r = users_hold(context->users, agent->uid, &agent->user);
        if (r < 0)
                goto fail;

        if (greeting.size > 0) {
                r = agent_answer(agent, greeting.data, greeting.size, false);
                if (r < 0)
                        goto fail;
        }

        *ret = agent;
        return 0;

fail:
        agent_free(agent);
        return r;
}

/* The agent has received the connection that was sent to it. */
static void settle_handed(struct agent *agent) {
        if (agent->handed)
                custody_give(agent->context->custody, STEAL(agent->handed));
}

struct agent *agent_free(struct agent *agent) {
        if (!agent)
                return NULL;

        if (agent->handed && agent->handed_is_lost)
                custody_take_back(agent->context->custody, STEAL(agent->handed));
        settle_handed(agent);
        if (agent->lent)
                custody_take_back(agent->context->custody, agent->lent);
        disposal_close(agent->context->disposal, agent->uid, DISPOSAL_PASSED, agent->passing.fd);
        /* The agent sees the end now, even if its socket is kept, or closed later. */
        (void) shutdown(agent->fd, SHUT_RDWR);
        if (!agent->user || user_ends(agent->context->users, agent->user, &agent->flight))
                disposal_close(agent->context->disposal, agent->uid, DISPOSAL_SOCKET, agent->fd);
        if (agent->user)
                user_release(agent->context->users, agent->user);
        wire_buffer_release(&agent->input);
        wire_buffer_release(&agent->output);
        free(agent);
        return NULL;
}

struct journal_subject agent_subject(const struct agent *agent, struct slice label) {
        return (struct journal_subject){ dialect_name(agent->dialect), agent->pid, agent->uid, label };
}

size_t agent_memory(const struct agent *agent) {
        size_t size = agent->input.size + agent->output.size;

        return size > MEMORY_FREE ? size : 0;
}

bool agent_has_unread(const struct agent *agent) {
        int unread;

        return ioctl(agent->fd, FIONREAD, &unread) < 0 || unread > 0;
}

bool agent_is_at_rest(const struct agent *agent) {
        return agent->is_served && !agent_is_busy(agent) && !agent->handed && !agent_has_unread(agent);
}

void agent_check_handed(struct agent *agent) {
        struct pollfd end = { agent->fd, POLLRDHUP, 0 };
        int unread;

        /* SIOCOUTQ counts what the agent has not read yet (unix(7)), but the kernel drops that when the agent hangs up. So
         * 0 means that it has read everything only if it is still connected afterwards. If it is not, agent_receive()
         * learns whether it had. */
        if (agent->handed && ioctl(agent->fd, SIOCOUTQ, &unread) == 0 && unread == 0 &&
                poll(&end, 1, 0) == 0)
                settle_handed(agent);
}

/* The lent connection has been sent. */
static void note_handed(struct agent *agent) {
        user_sent(agent->context->users, agent->user, &agent->flight, agent->fd);
        settle_handed(agent);
        agent->handed = STEAL(agent->lent);
}

int agent_answer(struct agent *agent, const void *data, size_t size, bool with_lent) {
        ssize_t n;
        int r;

        if (agent->output_ended)
                return -EPIPE;

        /* The agent asked for more before it showed that it received the last connection. If it now leaves an answer
         * unread, we cannot tell which one, so the connection counts as received. */
        settle_handed(agent);

        n = wire_send(agent->fd, data, size, with_lent ? agent->lent->fd : -1);
        if (n == -ETOOMANYREFS && with_lent)
                return (int) n;
        if (n < 0 && n != -EAGAIN) {
                agent->output_ended = true;
                return (int) n;
        }

        n = MAX(n, 0);
        if (n > 0 && with_lent)
                note_handed(agent);
        if ((size_t) n == size)
                return 0;

        r = wire_buffer_reserve(&agent->output, size - (size_t) n);
        if (r < 0) {
                agent->output_ended = true;
                return r;
        }
        memcpy(wire_buffer_tail(&agent->output), (const char *) data + n, size - (size_t) n);
        wire_buffer_produced(&agent->output, size - (size_t) n);
        agent->output_has_lent = with_lent && n == 0;
        return 0;
}

int agent_flush(struct agent *agent) {
        struct wire_buffer *output = &agent->output;

        while (wire_buffer_fill(output) > 0) {
                int fd = agent->output_has_lent ? agent->lent->fd : -1;
                ssize_t n;

                n = wire_send(agent->fd, wire_buffer_head(output), wire_buffer_fill(output), fd);
                if (n < 0)
                        return n == -EAGAIN ? 0 : (int) n;

                if (agent->output_has_lent)
                        note_handed(agent);
                agent->output_has_lent = false;
                wire_buffer_consumed(output, (size_t) n);
        }

        wire_buffer_release(output);
        return 0;
}

_cold_ static void endless(struct agent *agent) {
        struct journal_subject subject = agent_subject(agent, (struct slice){});

        journal_say(agent->context->journal, REQUEST_ENDLESS, &subject,
                "Disconnected agent %i of user %u: its request has more than %zu bytes "
                "(request_size_limit).",
                (int) agent->pid, agent->uid, agent->input.limit - DESCRIPTOR_BYTE);
}

static void discard(void *userdata, int fd) {
        const struct agent *agent = userdata;

        disposal_close(agent->context->disposal, agent->uid, DISPOSAL_PASSED, fd);
}

/* Keep what was passed with the bytes just read. Two for one unit are refused, as two in one message are. */
static void keep_passing(struct agent *agent, struct wire_passing *passing) {
        if (agent->passing.passed != WIRE_PASSED_NONE) {
                discard(agent, agent->passing.fd);
                discard(agent, passing->fd);
                agent->passing = (struct wire_passing){ WIRE_PASSED_MANY, -1 };
        } else
                agent->passing = *passing;

        agent->passing_end = wire_buffer_fill(&agent->input);
}

bool agent_may_send(const struct agent *agent) {
        return !disposal_is_full(agent->context->disposal, agent->uid);
}

int agent_receive(struct agent *agent) {
        struct wire_buffer *input = &agent->input;
        struct wire_passing passing;
        size_t size;
        ssize_t n;
        int r;

        if (agent->state == AGENT_SAVING) {
                /* Do not read past the byte that carries the descriptor. */
                size = 1;
                r = wire_buffer_reserve(input, size);
        } else {
                size_t left = input->limit - DESCRIPTOR_BYTE - wire_buffer_fill(input);

                r = wire_buffer_reserve(input, MIN(RECEIVE_SIZE, left));
                size = MIN(wire_buffer_room(input), left);
        }
        if (r == -ENOMEM)
                return r;
        if (r < 0 || size == 0) {
                endless(agent);
                return -EMSGSIZE;
        }

        n = wire_receive_with(agent->fd, wire_buffer_tail(input), size, discard, agent, &passing);
        if (n == -EAGAIN)
                return 0;
        if (n <= 0) {
                /* ECONNRESET: the agent closed its end before it read our answer. */
                agent->handed_is_lost = n == -ECONNRESET;
                agent->input_ended = true;
                return 0;
        }

        settle_handed(agent);
        wire_buffer_produced(input, (size_t) n);
        if (passing.passed != WIRE_PASSED_NONE)
                keep_passing(agent, &passing);
        return 0;
}

/* Take what was passed with the first N bytes of the input. */
static struct wire_passing take_passing(struct agent *agent, size_t n) {
        struct wire_passing passing = { WIRE_PASSED_NONE, -1 };

        if (agent->passing.passed != WIRE_PASSED_NONE && agent->passing_end <= n) {
                passing = agent->passing;
                agent->passing = (struct wire_passing){ WIRE_PASSED_NONE, -1 };
        }
        return passing;
}

static void consume(struct agent *agent, size_t n) {
        wire_buffer_consumed(&agent->input, n);
        wire_parser_reset(&agent->parser);
        agent->passing_end -= MIN(agent->passing_end, n);
        if (wire_buffer_fill(&agent->input) == 0 && agent->input.size > INPUT_KEPT)
                wire_buffer_release(&agent->input);
}

/* The size of the unit at the head of the input, 0 while it is not complete. */
static inline size_t unit_size(struct agent *agent) {
        size_t fill = wire_buffer_fill(&agent->input);

        if (agent->state == AGENT_SAVING)
                return fill > agent->parser.length ? agent->parser.length + DESCRIPTOR_BYTE : 0;

        return fill > 0 ? wire_parser_feed(&agent->parser, wire_buffer_head(&agent->input), fill) : 0;
}

/* There is no unit. An agent that sends no more, or takes no more answers, is at its end; another one needs input. */
static enum agent_need need_input(const struct agent *agent) {
        return agent->input_ended || agent->output_ended ? AGENT_NEEDS_END : AGENT_NEEDS_INPUT;
}

enum agent_need agent_next(struct agent *agent, struct agent_unit *ret) {
        if (wire_buffer_fill(&agent->output) > 0)
                return AGENT_NEEDS_ROOM;

        ret->size = unit_size(agent);
        if (ret->size == 0)
                return need_input(agent);

        ret->list = wire_parser_list(&agent->parser, wire_buffer_head(&agent->input));
        ret->passing = take_passing(agent, ret->size);
        return AGENT_NEEDS_WORK;
}

enum agent_need agent_done(struct agent *agent, struct agent_unit *unit) {
        if (unit->passing.fd >= 0)
                discard(agent, unit->passing.fd);

        /* The request to save stays until its descriptor has come. */
        if (agent->state != AGENT_SAVING) {
                consume(agent, unit->size);
                agent->is_served = true;
        }

        if (wire_buffer_fill(&agent->output) > 0)
                return AGENT_NEEDS_ROOM;
        return unit_size(agent) > 0 ? AGENT_NEEDS_TURN : need_input(agent);
}
