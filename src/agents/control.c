/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agents/control.h"

#include <errno.h>
#include <unistd.h>

#include "agents/control-pages.h"
#include "agents/control-top.h"
#include "cache/accounts.h"

#define STATUS_OK   0
#define STATUS_BAD  1
#define STATUS_FAIL 2

static int put_status(struct wire_buffer *buffer, const struct server *server) {
        const struct cache_counts *counts = cache_counts(server->cache);
        const struct accounts *accounts = cache_accounts(server->cache);
        const struct settings *settings = server->settings;
        const struct {
                const char *name;
                uint64_t value;
        } numbers[] = {
                { "process_id", (uint64_t) getpid() },
                { "agents", server->statistics.agents },
                { "connections", counts->connections },
                { "connections_lent", counts->lent },
                { "connections_leaving", custody_leaving(server->custody) },
                { "descriptors_closing", custody_closing(server->custody) },
                { "endpoints", counts->endpoints },
                { "destinations", counts->destinations },
                { "bindings", counts->bindings },
                { "memory_bytes", counts->bytes },
                { "history_memory_bytes", counts->history_bytes },
                { "bindings_evicted", counts->bindings_let_go },
                { "agents_memory_bytes", accounts->total[ACCOUNT_BUFFERS] },
                { "descriptors_in_flight", accounts->total[ACCOUNT_IN_FLIGHT] },
#define COUNTER(name, text) { #name, server->statistics.total.name },
                STATISTICS_COUNTERS(COUNTER)
#undef COUNTER
                        { "ttl_limit_us", settings->ttl_limit_us },
                { "max_idle_us", settings->max_idle_us },
                { "request_size_limit", settings->request_size_limit },
                { "share_between_users", settings->share_between_users },
        };
        int r;

        r = wire_put(buffer, SLICE("version"), SLICE(SCACHED_VERSION));
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(numbers); i++)
                r = wire_put_number(buffer, slice_of(numbers[i].name), numbers[i].value);
        return r;
}

bool control_is_for_agents(struct slice name) {
        return slice_equal(name, SLICE("list")) || slice_equal(name, SLICE("flush")) ||
                slice_equal(name, SLICE("top"));
}

/* Put what is asked for behind the status. Returns -EINVAL if the request makes no sense, -EPERM if it is about others. */
static int put_answer(struct server *server, const struct agent *agent, const struct wire_list *list) {
        const uid_t *only_user = agent->dialect == DIALECT_CONTROL ? NULL : &agent->uid;
        struct slice name = wire_list_value(list, 0);

        if (slice_equal(name, SLICE("list")))
                return control_list(server, list, only_user);
        if (slice_equal(name, SLICE("flush")))
                return control_flush(server, list, only_user);
        if (slice_equal(name, SLICE("top")))
                return control_top(server, list, only_user);
        if (slice_equal(name, SLICE("status")) && list->n_attributes == 1)
                return put_status(&server->scratch, server);
        return -EINVAL;
}

int control_request(struct server *server, struct agent *agent, const struct wire_list *list) {
        struct wire_buffer *scratch = &server->scratch;
        int r;

        wire_buffer_clear(scratch);
        r = wire_put_number(scratch, SLICE("status"), STATUS_OK);
        if (r >= 0)
                r = put_answer(server, agent, list);
        if (r == -EINVAL || r == -EPERM) {
                wire_buffer_clear(scratch);
                server->statistics.total.requests_refused++;
                r = wire_put_number(scratch, SLICE("status"), r == -EPERM ? STATUS_FAIL : STATUS_BAD);
        }
        if (r >= 0)
                r = wire_put_end(scratch);
        if (r < 0)
                return r;

        return agent_answer(agent, wire_buffer_head(scratch), wire_buffer_fill(scratch), false);
}
