/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agents/exchange.h"

#include <errno.h>
#include <stdio.h>

#include "agents/control.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/printable.h"
#include "custody/watch.h"

/* The exchanges of scache-protocol(7). Names and status values are Postfix's (scache_clnt.c, scache.c); those of the
 * one-trip forms are ours. */

/* The status in an answer. */
#define STATUS_OK   "0"
#define STATUS_BAD  "1" /* malformed request */
#define STATUS_FAIL "2" /* well-formed, but failed */

#define NAME_DUMMY     "dummy"
#define NAME_STATUS    "status"
#define NAME_EPOCH     "epoch"
#define PROPERTIES_MAX 2 /* in an answer */

/* The owner of all labels when users share connections. No user has this id (POSIX: -1 is "no change" to chown(2)). */
#define UID_EVERYONE ((uid_t) -1)

/* A request, and the agent that sent it. */
struct exchange {
        struct server *server;
        struct agent *agent;
        struct agent_unit *unit;
        const struct request *request; /* NULL until it is known */
        struct slice label;            /* of the endpoint or destination, once it is known */
        uint64_t ttl_us;
};

/* A kind of request. */
struct request {
        const char *name;
        bool (*is_well_formed)(const struct wire_list *list);
        size_t label;        /* index of the attribute with the label for the journal */
        size_t option;       /* index of the first optional attribute */
        size_t n_properties; /* in the answer */
        bool takes_descriptor;
        int (*handle)(struct exchange *exchange);
};

/* Why requests are refused. */
enum refusal {
        REFUSAL_MALFORMED,
        REFUSAL_UNKNOWN,
        REFUSAL_UNWANTED,
        REFUSAL_MISSING,
        REFUSAL_NO_SOCKET,
        REFUSAL_NO_STREAM,
        REFUSAL_OTHERS,
        REFUSAL_EXHAUSTED,
};

/* The line in the journal: the agent, BEFORE, a detail, AFTER. */
static const struct {
        enum event event;
        const char *status, *before, *after;
} refusals[] = {
        [REFUSAL_MALFORMED] = { EVENT_REQUEST_MALFORMED, STATUS_BAD, " sent a malformed ", " request" },
        [REFUSAL_UNKNOWN] = { EVENT_REQUEST_UNKNOWN, STATUS_BAD, " sent an unknown request \"", "\"" },
        [REFUSAL_UNWANTED] = { EVENT_DESCRIPTOR_UNWANTED, STATUS_BAD,
                " sent an unexpected descriptor, or more than one: closed", "" },
        [REFUSAL_MISSING] = { EVENT_DESCRIPTOR_MISSING, STATUS_FAIL,
                " asked to save a connection, but sent no descriptor", "" },
        [REFUSAL_NO_SOCKET] = { EVENT_DESCRIPTOR_REFUSED, STATUS_FAIL,
                " sent a descriptor that is not a socket: refused", "" },
        [REFUSAL_NO_STREAM] = { EVENT_DESCRIPTOR_REFUSED, STATUS_FAIL,
                " sent a socket that is not a stream of TCP or AF_UNIX, and so not a connection: refused",
                "" },
        [REFUSAL_OTHERS] = { EVENT_DESCRIPTOR_REFUSED, STATUS_FAIL,
                " sent a connection that another user has parked: refused", "" },
        [REFUSAL_EXHAUSTED] = { EVENT_EXHAUSTED, STATUS_FAIL, ": ", "" },
};

/* Options come last, in this order: a farewell or a handover, then an epoch. */

static inline bool is_epoch(struct slice name) {
        return slice_equal(name, SLICE(NAME_EPOCH));
}

/* Return the value of the farewell or handover, NULL data if there is none. */
static struct slice option_of(const struct exchange *exchange) {
        const struct wire_list *list = &exchange->unit->list;
        size_t i = exchange->request->option;

        return i < list->n_attributes && !is_epoch(wire_list_name(list, i)) ? wire_list_value(list, i)
                                                                            : (struct slice){};
}

static uint64_t epoch_of(const struct exchange *exchange) {
        const struct wire_list *list = &exchange->unit->list;
        size_t last = list->n_attributes - 1;

        return last >= exchange->request->option && is_epoch(wire_list_name(list, last))
                ? epoch_named(exchange->agent->epoch, wire_list_value(list, last))
                : exchange->agent->epoch.id;
}

static struct scope scope_of(const struct exchange *exchange) {
        return (struct scope){
                .uid = exchange->server->settings->share_between_users ? UID_EVERYONE : exchange->agent->uid,
                .epoch = epoch_of(exchange),
        };
}

/* Send an answer made of a status and, if the request is known, its PROPERTIES. */
static int answer(
        struct exchange *exchange, const char *status, const struct slice properties[], bool with_lent) {
        struct wire_buffer *scratch = &exchange->server->scratch;
        size_t n_properties = exchange->request ? exchange->request->n_properties : 0;
        int r;

        wire_buffer_clear(scratch);
        r = wire_put(scratch, SLICE(NAME_STATUS), (struct slice){ status, 1 });
        for (size_t i = 0; r >= 0 && i < n_properties; i++)
                r = wire_put(scratch, SLICE("property"), properties[i]);
        if (r >= 0)
                r = wire_put_end(scratch);
        if (r < 0) {
                /* Do not let the agent wait for this answer: disconnect it, so that it connects again. */
                exchange->agent->output_ended = true;
                return r;
        }

        return agent_answer(
                exchange->agent, wire_buffer_head(scratch), wire_buffer_fill(scratch), with_lent);
}

/* Answer status 0 to a request whose answer has no properties. */
static int answer_ok(struct exchange *exchange) {
        static const char ok[] = NAME_STATUS "\0" STATUS_OK "\0"; /* the last NUL ends the list */

        (void) agent_answer(exchange->agent, ok, sizeof(ok), false);
        return 0;
}

/* Answer a request with a status that is not "ok", in the form its agent expects. */
_cold_ static int answer_refused(struct exchange *exchange, const char *status) {
        static const struct slice empty[PROPERTIES_MAX] = {};

        exchange->server->statistics.total.requests_refused++;
        (void) answer(exchange, status, empty, false);
        return 0;
}

_cold_ static int refuse(struct exchange *exchange, enum refusal why, const char *detail) {
        const struct agent *agent = exchange->agent;
        struct journal_subject subject = agent_subject(agent, exchange->label);

        journal_write(exchange->server->journal, refusals[why].event, &subject,
                (struct journal_place){ __FILE__, __LINE__, __func__ }, "%s %i of user %u%s%s%s.",
                refusals[why].event == EVENT_EXHAUSTED ? "Could not save a connection for agent" : "Agent",
                (int) agent->pid, agent->uid, refusals[why].before, detail, refusals[why].after);

        /* For the next request to save. */
        if (why == REFUSAL_EXHAUSTED)
                (void) custody_make_room(exchange->server->custody);
        return answer_refused(exchange, refusals[why].status);
}

_cold_ static int refuse_malformed(struct exchange *exchange) {
        /* Without its form, no attribute is known to be the label. */
        exchange->label = (struct slice){};
        return refuse(
                exchange, REFUSAL_MALFORMED, exchange->request ? exchange->request->name : "(unnamed)");
}

_cold_ static void write_trace(const struct exchange *exchange, const char *outcome) {
        const struct agent *agent = exchange->agent;
        struct journal_subject subject = agent_subject(agent, exchange->label);

        journal_say(exchange->server->journal, TRACE, &subject, "%s %s for agent %i of user %u: %s",
                exchange->request->name, printable(exchange->label).text, (int) agent->pid, agent->uid,
                outcome);
}

/* Log an exchange, if -v was given. Labels are logged, properties never. */
static void trace(const struct exchange *exchange, const char *outcome) {
        if (journal_is_verbose(exchange->server->journal))
                write_trace(exchange, outcome);
}

/* Read the time to live in a request, and cut it at the limit. */
static int read_ttl(struct exchange *exchange) {
        uint64_t limit_us = exchange->server->settings->ttl_limit_us, ttl;
        int r;

        r = wire_number(wire_list_value(&exchange->unit->list, 1), &ttl);
        if (r < 0)
                return r;
        if (ttl == 0)
                return -EINVAL;

        exchange->ttl_us = ttl < limit_us / USEC_PER_SEC ? ttl * USEC_PER_SEC : limit_us;
        return 0;
}

/* Save the binding that a `save_dest` or `save` request describes: both begin alike. */
static int save_binding(struct exchange *exchange) {
        struct server *server = exchange->server;
        const struct wire_list *list = &exchange->unit->list;
        struct binding_details details = {
                .scope = scope_of(exchange),
                .saved_by = exchange->agent->uid,
                .destination = wire_list_value(list, 2),
                .property = wire_list_value(list, 3),
                .endpoint = wire_list_value(list, 4),
                .ttl_us = exchange->ttl_us,
                .deadline_us = usec_add(loop_now(server->loop), exchange->ttl_us),
        };
        int r;

        if (epoch_is_over(exchange->agent->epoch))
                return 0;

        cache_tell_time(server->cache, loop_now(server->loop));
        r = cache_save_destination(server->cache, &details);
        if (r < 0)
                return r;

        server->statistics.total.bindings_saved++;
        statistics_note(&server->statistics, cache_counts(server->cache));
        return 0;
}

_cold_ static void hand_over_failed(const struct exchange *exchange, int error) {
        const struct agent *agent = exchange->agent;
        struct journal_subject subject = agent_subject(agent, exchange->label);

        journal_say(exchange->server->journal, HAND_OVER_FAILED, &subject,
                "Could not pass a connection to agent %i of user %u, keeping it parked: %s.",
                (int) agent->pid, agent->uid, strerror(-error));
}

/* Save the connection whose descriptor has come, and WITH_BINDING a binding to its endpoint. */
static int save(struct exchange *exchange, bool with_binding) {
        struct server *server = exchange->server;
        struct wire_passing *passing = &exchange->unit->passing;
        struct connection_details details = {
                .scope = scope_of(exchange),
                .saved_by = exchange->agent->uid,
                .endpoint = exchange->label,
                .property = wire_list_value(&exchange->unit->list, exchange->request->label + 1),
                .farewell = option_of(exchange),
                .fd = passing->fd,
        };
        int r;

        if (read_ttl(exchange) < 0)
                return refuse_malformed(exchange);

        switch (passing->passed) {
        case WIRE_PASSED_NONE:
                return refuse(exchange, REFUSAL_MISSING, "");
        case WIRE_PASSED_MANY:
                return refuse(exchange, REFUSAL_UNWANTED, "");
        case WIRE_PASSED_LOST:
                return refuse(exchange, REFUSAL_EXHAUSTED, strerror(EMFILE));
        case WIRE_PASSED_ONE:
                break;
        }

        r = descriptor_check(server->descriptors, passing->fd, &details.cookie);
        if (r < 0)
                return refuse(exchange, r == -EPROTOTYPE ? REFUSAL_NO_STREAM : REFUSAL_NO_SOCKET, "");

        details.ttl_us = exchange->ttl_us;
        details.deadline_us = usec_add(loop_now(server->loop), exchange->ttl_us);
        if (!details.farewell.data && exchange->agent->dialect != DIALECT_NATIVE)
                details.farewell =
                        (struct slice){ server->settings->farewell, server->settings->farewell_size };

        /* The binding first: if it fails, the agent goes on using its connection, so the cache must not have it. */
        r = with_binding ? save_binding(exchange) : 0;
        if (r >= 0)
                r = epoch_is_over(exchange->agent->epoch) ? custody_decline(server->custody, &details)
                                                          : custody_save(server->custody, &details);
        if (r == -EEXIST)
                return refuse(exchange, REFUSAL_OTHERS, "");
        if (r < 0)
                return refuse(exchange, REFUSAL_EXHAUSTED, strerror(-r));
        (void) steal_fd(&passing->fd);
        server->statistics.total.connections_saved++;
        exchange->agent->taking = (struct cache_taking){};

        statistics_note(&server->statistics, cache_counts(server->cache));
        trace(exchange, "saved");
        return answer_ok(exchange);
}

static int on_save(struct exchange *exchange) {
        return save(exchange, true);
}

static int on_save_endpoint(struct exchange *exchange) {
        static const char dummy[] = NAME_DUMMY "\0\0"; /* with an empty value; the last NUL ends the list */

        /* With its descriptor, the request is the one-trip form. Without one, ask for it: such an agent sends it only then,
         * because a server that reads with read(2) would lose a descriptor that comes early. */
        if (exchange->unit->passing.passed != WIRE_PASSED_NONE)
                return save(exchange, false);
        if (read_ttl(exchange) < 0)
                return refuse_malformed(exchange);

        exchange->agent->state = AGENT_SAVING;
        (void) agent_answer(exchange->agent, dummy, sizeof(dummy), false);
        return 0;
}

static int on_save_destination(struct exchange *exchange) {
        int r;

        if (read_ttl(exchange) < 0)
                return refuse_malformed(exchange);

        r = save_binding(exchange);
        if (r < 0)
                return refuse(exchange, REFUSAL_EXHAUSTED, strerror(-r));

        trace(exchange, "saved");
        return answer_ok(exchange);
}

void exchange_used_up(struct server *server, struct agent *agent) {
        if (agent->taking.key != 0)
                cache_note_used(server->cache, &agent->taking, loop_now(server->loop));
        agent->taking = (struct cache_taking){};
}

_cold_ static void trace_miss(const struct exchange *exchange, const struct cache_miss *miss) {
        char text[96];

        (void) snprintf(text, sizeof(text), "not found (%s, %.1f s ago)", reason_name(miss->reason),
                (double) miss->ago_us / USEC_PER_SEC);
        write_trace(exchange, miss->reason == REASON_UNKNOWN ? "not found (unknown)" : text);
}

/* A lookup missed, or was not made, for the epoch of the agent is over. */
static int on_miss(struct exchange *exchange, enum label_kind kind, struct scope scope) {
        static const struct slice empty[PROPERTIES_MAX] = {};
        struct server *server = exchange->server;
        struct cache_miss miss;

        cache_explain_miss(server->cache, kind, scope, exchange->label, loop_now(server->loop),
                epoch_is_over(exchange->agent->epoch), &miss);
        statistics_count_miss(&server->statistics.total, kind, &miss);
        if (journal_is_verbose(server->journal))
                trace_miss(exchange, &miss);
        (void) answer(exchange, STATUS_FAIL, empty, false);
        return 0;
}

static int on_find(struct exchange *exchange) {
        struct server *server = exchange->server;
        struct agent *agent = exchange->agent;
        struct statistics_counters *total = &server->statistics.total;
        struct slice handover = option_of(exchange), properties[PROPERTIES_MAX] = {};
        size_t n_properties = exchange->request->n_properties;
        bool by_destination = n_properties == 2; /* the first one is the binding's */
        uint64_t now_us = loop_now(server->loop);
        struct scope scope = scope_of(exchange);
        struct connection *connection;
        int r;

        if (handover.data && !slice_equal(handover, SLICE("inline")))
                return refuse_malformed(exchange);

        if (!user_may_send(agent->context->users, agent->user)) {
                hand_over_failed(exchange, -ETOOMANYREFS);
                return answer_refused(exchange, STATUS_FAIL);
        }

        exchange_used_up(server, agent);
        connection = epoch_is_over(agent->epoch) ? NULL
                : by_destination
                ? cache_find_destination(server->cache, scope, exchange->label, now_us, &properties[0])
                : cache_find_endpoint(server->cache, scope, exchange->label, now_us);
        agent->is_looking = !connection;
        if (!connection)
                return on_miss(exchange, by_destination ? LABEL_DESTINATION : LABEL_ENDPOINT, scope);

        *(by_destination ? &total->destination_hits : &total->endpoint_hits) += 1;
        total->deliveries_reused++;
        statistics_count_time(total, STATISTICS_REUSE_IDLE, connection_idle(connection, now_us));
        agent->taking = cache_taking(server->cache, connection);
        trace(exchange, "found");
        custody_lend(server->custody, connection);
        agent->lent = connection;
        properties[n_properties - 1] = connection_property(connection);
        r = answer(exchange, STATUS_OK, properties, handover.data != NULL);
        if (r < 0) {
                custody_take_back(server->custody, STEAL(agent->lent));
                if (r == -ETOOMANYREFS) {
                        hand_over_failed(exchange, r);
                        return answer_refused(exchange, STATUS_FAIL);
                }
        } else if (!handover.data)
                agent->state = AGENT_FINDING;
        return 0;
}

/* The agent asks for the descriptor of the connection that was found: send it. */
static int hand_over(struct exchange *exchange) {
        struct agent *agent = exchange->agent;
        int r;

        r = agent_answer(agent, "", 1, true);
        if (r >= 0)
                return 0;

        /* The agent waits for a descriptor that cannot come: the error disconnects it, so that it connects and asks again. */
        exchange->label = label_text(agent->lent->endpoint);
        hand_over_failed(exchange, r);
        return r;
}

/* Names are compared with constants one by one: this takes a few instructions, and no call. */

static inline bool has(const struct wire_list *list, size_t i, struct slice name) {
        return i < list->n_attributes && slice_equal(wire_list_name(list, i), name);
}

/* Return whether the list has N attributes, then possibly OPTION, then possibly an epoch. */
static inline bool ends(const struct wire_list *list, size_t n, struct slice option) {
        if (list->n_attributes == n)
                return true;
        if (option.size > 0 && has(list, n, option))
                n++;
        if (has(list, n, SLICE(NAME_EPOCH)))
                n++;
        return list->n_attributes == n;
}

/* The form of each request: its attributes after the name. */

static bool is_find(const struct wire_list *list) {
        return has(list, 1, SLICE("label")) && ends(list, 2, SLICE("handover"));
}

/* The first attributes of all requests to save. */
static inline bool begins_to_save(const struct wire_list *list) {
        return has(list, 1, SLICE("ttl")) && has(list, 2, SLICE("label")) && has(list, 3, SLICE("property"));
}

static bool is_save_endpoint(const struct wire_list *list) {
        return begins_to_save(list) && ends(list, 4, SLICE("farewell"));
}

static bool is_save_destination(const struct wire_list *list) {
        return begins_to_save(list) && has(list, 4, SLICE("label")) && ends(list, 5, SLICE(""));
}

static bool is_save(const struct wire_list *list) {
        return begins_to_save(list) && has(list, 4, SLICE("label")) && has(list, 5, SLICE("property")) &&
                ends(list, 6, SLICE("farewell"));
}

/* REQUEST(record, name, form, index of the label, index of the first option, properties in the answer, takes a descriptor,
 * handler), most frequent first. */
#define REQUESTS(REQUEST)                                                                                \
        REQUEST(find_destination, "find_dest", is_find, 1, 2, 2, false, on_find)                         \
        REQUEST(save_both, "save", is_save, 4, 6, 0, true, on_save)                                      \
        REQUEST(save_destination, "save_dest", is_save_destination, 2, 5, 0, false, on_save_destination) \
        REQUEST(save_endpoint, "save_endp", is_save_endpoint, 2, 4, 0, true, on_save_endpoint)           \
        REQUEST(find_endpoint, "find_endp", is_find, 1, 2, 1, false, on_find)

#define REQUEST(id, ...) static const struct request id = { __VA_ARGS__ };
REQUESTS(REQUEST)
#undef REQUEST

static const struct request *request_from_name(struct slice name) {
#define REQUEST(id, text, ...) slice_equal(name, SLICE(text)) ? &id:
        return REQUESTS(REQUEST) NULL;
#undef REQUEST
}

static inline bool is_dummy(const struct wire_list *list) {
        return list->n_attributes == 1 && slice_equal(wire_list_name(list, 0), SLICE(NAME_DUMMY));
}

int exchange_unit(struct server *server, struct agent *agent, struct agent_unit *unit) {
        struct exchange exchange = { .server = server, .agent = agent, .unit = unit };
        const struct wire_list *list = &unit->list;
        bool has_passed = unit->passing.passed != WIRE_PASSED_NONE;
        enum agent_state state = agent->state;

        agent->state = AGENT_IDLE;
        if (state == AGENT_FINDING) {
                if (!has_passed && is_dummy(list))
                        return hand_over(&exchange);

                /* The agent sent something else, so it does not want the connection that was found. */
                custody_take_back(server->custody, STEAL(agent->lent));
        }

        if (state == AGENT_SAVING) {
                exchange.request = &save_endpoint;
                exchange.label = wire_list_value(list, save_endpoint.label);
                return save(&exchange, false);
        }

        /* Ignore two lists, as Postfix's scache(8) does: the last `dummy` of a find, which comes late or never, and the byte
         * of a descriptor whose request was already refused. */
        if (list->n_attributes == 0 || is_dummy(list))
                return has_passed ? refuse(&exchange, REFUSAL_UNWANTED, "") : 0;
        if (!slice_equal(wire_list_name(list, 0), SLICE("request")))
                return refuse_malformed(&exchange);
        if (agent->dialect == DIALECT_CONTROL)
                return control_request(server, agent, list);

        exchange.request = request_from_name(wire_list_value(list, 0));
        if (!exchange.request && agent->dialect == DIALECT_NATIVE &&
                control_is_for_agents(wire_list_value(list, 0)))
                return control_request(server, agent, list);
        if (!exchange.request)
                return refuse(&exchange, REFUSAL_UNKNOWN, printable(wire_list_value(list, 0)).text);
        if (!exchange.request->is_well_formed(list))
                return refuse_malformed(&exchange);

        exchange.label = wire_list_value(list, exchange.request->label);
        /* A delivery looks up its destination and, after a miss, one endpoint after the other. Together these lookups count as
         * one reuse or one miss. */
        if (agent->is_looking && exchange.request != &find_endpoint) {
                server->statistics.total.deliveries_missed++;
                agent->is_looking = false;
        }
        if (has_passed && !exchange.request->takes_descriptor)
                return refuse(&exchange, REFUSAL_UNWANTED, "");
        return exchange.request->handle(&exchange);
}
