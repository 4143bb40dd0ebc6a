#include "agents/exchange.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "agents/control.h"
#include "agents/server.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/printable.h"
#include "custody/watch.h"

/* Every exchange of scache-protocol(7), the names and the status values of which are Postfix's (scache_clnt.c,
 * scache.c), those of the one-trip forms ours. */

/* What an answer's status says. */
enum verdict {
        STATUS_OK,
        STATUS_BAD,  /* malformed request */
        STATUS_FAIL, /* well-formed, and could not be done */
        _VERDICT_MAX,
};

static const struct slice verdicts[_VERDICT_MAX] = {
        [STATUS_OK] = SLICE_INIT("0"),
        [STATUS_BAD] = SLICE_INIT("1"),
        [STATUS_FAIL] = SLICE_INIT("2"),
};

#define NAME_DUMMY    "dummy"
#define NAME_STATUS   "status"
#define NAME_PROPERTY "property"

/* Who may find what is saved, where users share. No user has this id (POSIX: -1 is "no change" to chown(2)). */
#define UID_EVERYONE ((uid_t) -1)

enum request {
        REQUEST_SAVE_ENDPOINT,
        REQUEST_FIND_ENDPOINT,
        REQUEST_SAVE_DESTINATION,
        REQUEST_FIND_DESTINATION,
        REQUEST_SAVE,
        _REQUEST_MAX,
        _REQUEST_INVALID = -1,
};

#define NAME_SAVE_ENDPOINT    "save_endp"
#define NAME_FIND_ENDPOINT    "find_endp"
#define NAME_SAVE_DESTINATION "save_dest"
#define NAME_FIND_DESTINATION "find_dest"
#define NAME_SAVE             "save"

/* What comes with each request behind its name, in this order, a letter for each attribute (is_attribute()). */
static const struct {
        const char *name;
        char attributes[WIRE_ATTRIBUTES_MAX];
        size_t n_attributes; /* that must be there; one after them may */
        size_t n_properties; /* in the answer */
} requests[_REQUEST_MAX] = {
        [REQUEST_SAVE_ENDPOINT] = { NAME_SAVE_ENDPOINT, "tlpf", 3, 0 },
        [REQUEST_FIND_ENDPOINT] = { NAME_FIND_ENDPOINT, "lh", 1, 1 },
        [REQUEST_SAVE_DESTINATION] = { NAME_SAVE_DESTINATION, "tlpl", 4, 0 },
        [REQUEST_FIND_DESTINATION] = { NAME_FIND_DESTINATION, "lh", 1, 2 },
        [REQUEST_SAVE] = { NAME_SAVE, "tlplpf", 5, 0 },
};

/* Names are compared with constants, one by one: that takes a few instructions, and no call. */

static bool is_attribute(struct slice name, char letter) {
        switch (letter) {
        case 't':
                return slice_equal(name, SLICE("ttl"));
        case 'l':
                return slice_equal(name, SLICE("label"));
        case 'p':
                return slice_equal(name, SLICE(NAME_PROPERTY));
        case 'h':
                return slice_equal(name, SLICE("handover"));
        case 'f':
                return slice_equal(name, SLICE("farewell"));
        default:
                return false;
        }
}

static enum request request_from_name(struct slice name) {
        if (slice_equal(name, SLICE(NAME_FIND_DESTINATION)))
                return REQUEST_FIND_DESTINATION;
        if (slice_equal(name, SLICE(NAME_SAVE_DESTINATION)))
                return REQUEST_SAVE_DESTINATION;
        if (slice_equal(name, SLICE(NAME_SAVE_ENDPOINT)))
                return REQUEST_SAVE_ENDPOINT;
        if (slice_equal(name, SLICE(NAME_FIND_ENDPOINT)))
                return REQUEST_FIND_ENDPOINT;
        if (slice_equal(name, SLICE(NAME_SAVE)))
                return REQUEST_SAVE;

        return _REQUEST_INVALID;
}

/* The value of the attribute that may follow those of a well-formed request, NULL data if it did not. */
static struct slice option_of(enum request request, const struct wire_list *list) {
        size_t n = 1 + requests[request].n_attributes;

        return list->n_attributes > n ? wire_list_value(list, n) : (struct slice){};
}

/* Has the list, behind the name of this request, its attributes, and maybe its option? */
static bool is_well_formed(enum request request, const struct wire_list *list) {
        if (list->n_attributes < 1 + requests[request].n_attributes)
                return false;

        for (size_t i = 1; i < list->n_attributes; i++)
                if (!is_attribute(wire_list_name(list, i), requests[request].attributes[i - 1]))
                        return false;
        return true;
}

static uid_t scope_of(const struct agent *agent) {
        return agent->server->settings->share_between_users ? UID_EVERYONE : agent->uid;
}

/* Send an answer made of a status and properties. */
static int answer(struct agent *agent, enum verdict verdict, const struct slice properties[],
        size_t n_properties, bool with_lent) {
        struct wire_buffer *scratch = &agent->server->scratch;
        int r;

        wire_buffer_clear(scratch);
        r = wire_put(scratch, SLICE(NAME_STATUS), verdicts[verdict]);
        for (size_t i = 0; r >= 0 && i < n_properties; i++)
                r = wire_put(scratch, SLICE(NAME_PROPERTY), properties[i]);
        if (r >= 0)
                r = wire_put_end(scratch);
        if (r < 0) {
                /* Without an answer the agent would wait: better that it connects anew. */
                agent->output_ended = true;
                return r;
        }

        return agent_answer(agent, wire_buffer_head(scratch), wire_buffer_fill(scratch), with_lent);
}

/* Answer a request that was done, and has nothing to tell but that. */
static void answer_ok(struct agent *agent) {
        static const char ok[] = NAME_STATUS "\0"
                                             "0\0"; /* the last NUL ends the list */

        (void) agent_answer(agent, ok, sizeof(ok), false);
}

/* Answer a request with a status that is not "ok", in the form its agent expects. */
_cold_ static int refuse(struct agent *agent, enum request request, enum verdict verdict) {
        static const struct slice empty[2] = {};

        agent->server->statistics.total.requests_refused++;
        (void) answer(agent, verdict, empty,
                request == _REQUEST_INVALID ? 0 : requests[request].n_properties, false);
        return 0;
}

_cold_ static int refuse_exhausted(
        struct agent *agent, enum request request, struct slice label, int error) {
        struct journal_subject subject = agent_subject(agent, label);

        journal_say(agent->server->journal, EXHAUSTED, &subject,
                "Could not save a connection for agent %i of user %u: %s.", (int) agent->pid, agent->uid,
                strerror(-error));

        /* For whoever asks next. */
        (void) custody_make_room(agent->server->custody);
        return refuse(agent, request, STATUS_FAIL);
}

_cold_ static int refuse_descriptors(struct agent *agent, enum request request, struct slice label) {
        struct journal_subject subject = agent_subject(agent, label);

        journal_say(agent->server->journal, DESCRIPTOR_UNWANTED, &subject,
                "Agent %i of user %u sent a descriptor where none belongs, or more than one: closed.",
                (int) agent->pid, agent->uid);
        return refuse(agent, request, STATUS_BAD);
}

/* What is parked cannot help: none of it is let go of to make room. */
_cold_ static int refuse_declined(struct agent *agent, enum request request, struct slice label) {
        struct journal_subject subject = agent_subject(agent, label);

        journal_say(agent->server->journal, EXHAUSTED, &subject,
                "Could not save a connection for agent %i of user %u: too many descriptors that agents "
                "sent and that are no sockets are still being closed.",
                (int) agent->pid, agent->uid);
        return refuse(agent, request, STATUS_FAIL);
}

_cold_ static int refuse_without_descriptor(struct agent *agent, enum request request, struct slice label) {
        struct journal_subject subject = agent_subject(agent, label);

        journal_say(agent->server->journal, DESCRIPTOR_MISSING, &subject,
                "Agent %i of user %u asked to save a connection, but sent no descriptor for it.",
                (int) agent->pid, agent->uid);
        return refuse(agent, request, STATUS_FAIL);
}

_cold_ static int refuse_no_socket(struct agent *agent, enum request request, struct slice label) {
        struct journal_subject subject = agent_subject(agent, label);

        journal_say(agent->server->journal, DESCRIPTOR_REFUSED, &subject,
                "Agent %i of user %u sent a descriptor that is not a socket: refused.", (int) agent->pid,
                agent->uid);
        return refuse(agent, request, STATUS_FAIL);
}

_cold_ static int refuse_malformed(struct agent *agent, enum request request) {
        struct journal_subject subject = agent_subject(agent, (struct slice){});

        journal_say(agent->server->journal, REQUEST_MALFORMED, &subject,
                "Agent %i of user %u sent a malformed %s request.", (int) agent->pid, agent->uid,
                request == _REQUEST_INVALID ? "(unnamed)" : requests[request].name);
        return refuse(agent, request, STATUS_BAD);
}

_cold_ static void write_trace(
        const struct agent *agent, enum request request, struct slice label, const char *outcome) {
        struct journal_subject subject = agent_subject(agent, label);

        journal_say(agent->server->journal, TRACE, &subject, "%s %s for agent %i of user %u: %s",
                requests[request].name, printable(label).text, (int) agent->pid, agent->uid, outcome);
}

/* Note what an exchange did, where somebody asked to see it. Labels are shown, properties never. */
static void trace(const struct agent *agent, enum request request, struct slice label, const char *outcome) {
        if (journal_is_verbose(agent->server->journal))
                write_trace(agent, request, label, outcome);
}

/* The time to live that a request asks for, in µs, within the limit. */
static int ttl_of(const struct agent *agent, const struct wire_list *list, uint64_t *ret_us) {
        uint64_t limit_us = agent->server->settings->ttl_limit_us, ttl;
        int r;

        r = wire_number(wire_list_value(list, 1), &ttl);
        if (r < 0)
                return r;
        if (ttl == 0)
                return -EINVAL;

        *ret_us = ttl < limit_us / USEC_PER_SEC ? ttl * USEC_PER_SEC : limit_us;
        return 0;
}

/* Save the binding that a `save_dest` or `save` request describes: both begin alike. */
static int bind_destination(struct agent *agent, const struct wire_list *list, uint64_t ttl_us) {
        struct server *server = agent->server;
        struct binding_details details = {
                .uid = scope_of(agent),
                .destination = wire_list_value(list, 2),
                .property = wire_list_value(list, 3),
                .endpoint = wire_list_value(list, 4),
                .ttl_us = ttl_us,
                .deadline_us = usec_add(loop_now(server->loop), ttl_us),
        };
        int r;

        r = cache_save_destination(server->cache, &details);
        if (r < 0)
                return r;

        server->statistics.total.bindings_saved++;
        statistics_note(&server->statistics, cache_counts(server->cache));
        return 0;
}

_cold_ static int refuse_unknown(struct agent *agent, struct slice name) {
        struct journal_subject subject = agent_subject(agent, (struct slice){});

        journal_say(agent->server->journal, REQUEST_UNKNOWN, &subject,
                "Agent %i of user %u sent an unknown request \"%s\".", (int) agent->pid, agent->uid,
                printable(name).text);
        return refuse(agent, _REQUEST_INVALID, STATUS_BAD);
}

_cold_ static void hand_over_failed(const struct agent *agent, struct slice label, int error) {
        struct journal_subject subject = agent_subject(agent, label);

        journal_say(agent->server->journal, HAND_OVER_FAILED, &subject,
                "Could not hand a connection over to agent %i of user %u, it stays parked: %s.",
                (int) agent->pid, agent->uid, strerror(-error));
}

/* Save what a request of the save kind says, with the descriptor that came for it. */
static int save(struct agent *agent, enum request request, const struct wire_list *list, uint64_t ttl_us,
        struct wire_passing *passing) {
        struct server *server = agent->server;
        bool with_binding = request == REQUEST_SAVE;
        struct slice farewell = option_of(request, list);
        struct connection_details details = {
                .uid = scope_of(agent),
                .saved_by = agent->uid,
                .endpoint = wire_list_value(list, with_binding ? 4 : 2),
                .property = wire_list_value(list, with_binding ? 5 : 3),
                .farewell = farewell,
                .ttl_us = ttl_us,
                .deadline_us = usec_add(loop_now(server->loop), ttl_us),
                .fd = passing->fd,
        };
        int r;

        switch (passing->passed) {
        case WIRE_PASSED_NONE:
                return refuse_without_descriptor(agent, request, details.endpoint);
        case WIRE_PASSED_MANY:
                return refuse_descriptors(agent, request, details.endpoint);
        case WIRE_PASSED_LOST:
                return refuse_exhausted(agent, request, details.endpoint, -EMFILE);
        case WIRE_PASSED_DECLINED:
                return refuse_declined(agent, request, details.endpoint);
        case WIRE_PASSED_ONE:
                break;
        }

        if (passing->fd < 0)
                return refuse_no_socket(agent, request, details.endpoint);

        if (!farewell.data && agent->dialect != DIALECT_NATIVE)
                details.farewell =
                        (struct slice){ server->settings->farewell, server->settings->farewell_size };

        /* The binding first: an agent that is told "no" still has its connection, so the cache must not. */
        if (with_binding) {
                r = bind_destination(agent, list, ttl_us);
                if (r < 0)
                        return refuse_exhausted(agent, request, details.endpoint, r);
        }

        r = custody_save(server->custody, &details);
        if (r < 0)
                return refuse_exhausted(agent, request, details.endpoint, r);
        (void) steal_fd(&passing->fd);
        server->statistics.total.connections_saved++;

        statistics_note(&server->statistics, cache_counts(server->cache));
        trace(agent, request, details.endpoint, "saved");
        answer_ok(agent);
        return 0;
}

static int on_save_endpoint(
        struct agent *agent, const struct wire_list *list, struct wire_passing *passing) {
        static const char dummy[] = NAME_DUMMY "\0\0"; /* with an empty value; the last NUL ends the list */
        uint64_t ttl_us;

        if (ttl_of(agent, list, &ttl_us) < 0)
                return refuse_malformed(agent, REQUEST_SAVE_ENDPOINT);

        /* A descriptor that came along makes it one trip. Else it is asked for: sent unasked, it would be lost to an
         * agent that reads with read(2), so that is what such an agent waits for. */
        if (passing->passed != WIRE_PASSED_NONE)
                return save(agent, REQUEST_SAVE_ENDPOINT, list, ttl_us, passing);

        agent->state = AGENT_SAVING;
        (void) agent_answer(agent, dummy, sizeof(dummy), false);
        return 0;
}

static int on_save(struct agent *agent, const struct wire_list *list, struct wire_passing *passing) {
        uint64_t ttl_us;

        if (ttl_of(agent, list, &ttl_us) < 0)
                return refuse_malformed(agent, REQUEST_SAVE);

        return save(agent, REQUEST_SAVE, list, ttl_us, passing);
}

static int on_save_destination(struct agent *agent, const struct wire_list *list) {
        uint64_t ttl_us;
        int r;

        if (ttl_of(agent, list, &ttl_us) < 0)
                return refuse_malformed(agent, REQUEST_SAVE_DESTINATION);

        r = bind_destination(agent, list, ttl_us);
        if (r < 0)
                return refuse_exhausted(agent, REQUEST_SAVE_DESTINATION, wire_list_value(list, 2), r);

        trace(agent, REQUEST_SAVE_DESTINATION, wire_list_value(list, 2), "saved");
        answer_ok(agent);
        return 0;
}

static int on_find(struct agent *agent, enum request request, const struct wire_list *list) {
        struct server *server = agent->server;
        bool by_destination = request == REQUEST_FIND_DESTINATION;
        struct statistics_counters *total = &server->statistics.total;
        struct slice label = wire_list_value(list, 1), handover = option_of(request, list),
                     properties[2] = {};
        size_t n_properties = requests[request].n_properties;
        struct connection *connection;
        int r;

        if (handover.data && !slice_equal(handover, SLICE("inline")))
                return refuse_malformed(agent, request);

        connection = by_destination
                ? cache_find_destination(
                          server->cache, scope_of(agent), label, loop_now(server->loop), &properties[0])
                : cache_find_endpoint(server->cache, scope_of(agent), label, loop_now(server->loop));
        *(by_destination             ? connection ? &total->destination_hits : &total->destination_misses
                        : connection ? &total->endpoint_hits
                                     : &total->endpoint_misses) += 1;
        trace(agent, request, label, connection ? "found" : "not found");
        if (!connection) {
                (void) answer(agent, STATUS_FAIL, properties, n_properties, false);
                return 0;
        }

        custody_lend(server->custody, connection);
        agent->lent = connection;
        properties[n_properties - 1] = connection_property(connection);
        r = answer(agent, STATUS_OK, properties, n_properties, handover.data != NULL);
        if (r == -ETOOMANYREFS) {
                custody_take_back(server->custody, STEAL(agent->lent));
                hand_over_failed(agent, label, r);
                return refuse(agent, request, STATUS_FAIL);
        }
        if (r < 0)
                custody_take_back(server->custody, STEAL(agent->lent));
        else if (!handover.data)
                agent->state = AGENT_FINDING;
        return 0;
}

/* The agent asks for the descriptor that it was told was found. */
static int hand_over(struct agent *agent) {
        int r;

        agent->state = AGENT_IDLE;
        r = agent_answer(agent, "", 1, true);
        if (r >= 0)
                return 0;

        /* It waits for a descriptor and gets none: better that it connects anew and asks again. */
        hand_over_failed(agent, connection_endpoint(agent->lent), r);
        return r;
}

/* Lists that are read and mean nothing: the last `dummy` of a find, which comes late or not at all, and the byte of a
 * descriptor that was already refused. Postfix's scache(8) reads past both, too. */
static bool is_filler(const struct wire_list *list) {
        return list->n_attributes == 0 ||
                (list->n_attributes == 1 && slice_equal(wire_list_name(list, 0), SLICE(NAME_DUMMY)));
}

int exchange_descriptor(struct agent *agent, const struct wire_list *list, struct wire_passing *passing) {
        uint64_t ttl_us;
        int r;

        r = ttl_of(agent, list, &ttl_us);
        return r < 0 ? r : save(agent, REQUEST_SAVE_ENDPOINT, list, ttl_us, passing);
}

int exchange_list(struct agent *agent, const struct wire_list *list, struct wire_passing *passing) {
        bool has_passed = passing->passed != WIRE_PASSED_NONE;
        enum request request;

        if (agent->state == AGENT_FINDING) {
                if (!has_passed && is_filler(list) && list->n_attributes == 1)
                        return hand_over(agent);

                /* It asks for something else instead, so it does not want what was found. */
                agent->state = AGENT_IDLE;
                custody_take_back(agent->server->custody, STEAL(agent->lent));
        }

        if (is_filler(list))
                return has_passed ? refuse_descriptors(agent, _REQUEST_INVALID, (struct slice){}) : 0;
        if (!slice_equal(wire_list_name(list, 0), SLICE("request")))
                return refuse_malformed(agent, _REQUEST_INVALID);
        if (agent->dialect == DIALECT_CONTROL)
                return control_request(agent, list);

        request = request_from_name(wire_list_value(list, 0));
        if (request == _REQUEST_INVALID)
                return refuse_unknown(agent, wire_list_value(list, 0));
        if (!is_well_formed(request, list))
                return refuse_malformed(agent, request);

        switch (request) {
        case REQUEST_SAVE_ENDPOINT:
                return on_save_endpoint(agent, list, passing);
        case REQUEST_SAVE:
                return on_save(agent, list, passing);
        case REQUEST_SAVE_DESTINATION:
        case REQUEST_FIND_ENDPOINT:
        case REQUEST_FIND_DESTINATION:
                if (has_passed)
                        return refuse_descriptors(agent, request, wire_list_value(list, 1));
                return request == REQUEST_SAVE_DESTINATION ? on_save_destination(agent, list)
                                                           : on_find(agent, request, list);
        default:
                return -EINVAL;
        }
}
