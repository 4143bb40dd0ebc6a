#include "scached/control.h"

#include "scached/agents.h"
#include "scached/server.h"

#define STATUS_OK  0
#define STATUS_BAD 1

static int put_status(struct wire_buffer *buffer, const struct server *server) {
        const struct cache_counts *counts = cache_counts(server->cache);
        const struct {
                const char *name;
                uint64_t value;
        } numbers[] = { { "agents", agents_count(server->agents) }, { "connections", counts->connections },
                { "connections_lent", counts->lent },
                { "connections_leaving", custody_leaving(server->custody) },
                { "endpoints", counts->endpoints }, { "destinations", counts->destinations },
                { "bindings", counts->bindings }, { "memory_bytes", counts->bytes },
#define COUNTER(name, text) { #name, server->statistics.total.name },
                STATISTICS_COUNTERS(COUNTER)
#undef COUNTER
        };
        int r;

        r = wire_put(buffer, SLICE("version"), SLICE(SCACHED_VERSION));
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(numbers); i++)
                r = wire_put_number(buffer, slice_of(numbers[i].name), numbers[i].value);
        return r;
}

int control_request(struct agent *agent, const struct wire_list *list) {
        struct server *server = agent->server;
        struct wire_buffer *scratch = &server->scratch;
        bool is_status = list->n_attributes == 1 && slice_equal(list->attributes[0].value, SLICE("status"));
        int r;

        wire_buffer_clear(scratch);
        r = wire_put_number(scratch, SLICE("status"), is_status ? STATUS_OK : STATUS_BAD);
        if (r >= 0 && is_status)
                r = put_status(scratch, server);
        if (r >= 0)
                r = wire_put_end(scratch);
        if (r < 0)
                return r;

        return agent_answer(agent, wire_buffer_head(scratch), wire_buffer_fill(scratch), false);
}
