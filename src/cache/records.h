/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cache: its public records: connections, the details of a save, limits and counts */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "base/slice.h"
#include "cache/deadlines.h"
#include "cache/past.h"
#include "cache/table.h"

/* Others read the records; only the cache writes them, but for what is the owner's. */

enum connection_state {
        CONNECTION_PARKED,   /* in the cache, can be found */
        CONNECTION_LENT,     /* found, but not yet received by the agent: may come back */
        CONNECTION_DEPARTED, /* out of the cache */
};

/* Why a connection departed. */
enum departure {
        DEPARTURE_EXPIRED,
        DEPARTURE_LIMIT,
        DEPARTURE_FLUSHED,
        DEPARTURE_REPLACED, /* its socket was saved again: the descriptor is a copy of one that is parked */
        DEPARTURE_OUTDATED, /* of an epoch that is over */
        _DEPARTURE_MAX,
};

/* A connection. Others may read it; they write only the owner's members. */
struct connection {
        TAILQ_ENTRY(connection) siblings; /* of its endpoint, or of the departed; later the owner's */
        struct deadline deadline;
        struct label *endpoint;       /* NULL once it is out of the cache */
        struct table_entry by_socket; /* where the socket is known */
        uint64_t id;                  /* grows with every connection saved */
        int fd;                       /* the owner's */
        uid_t uid;                    /* who saved it, and whose account it is on */
        uint32_t property_size;
        uint32_t farewell_size;
        uint8_t state;      /* enum connection_state */
        uint8_t departure;  /* enum departure */
        uint8_t owner_bits; /* the owner's */
        bool has_socket;
        char bytes[]; /* property NUL farewell NUL */
};

TAILQ_HEAD(connection_list, connection);

/* Binds a destination to an endpoint. */
struct binding {
        TAILQ_ENTRY(binding) siblings;
        struct deadline deadline;
        struct label *destination;
        struct label *endpoint;
        uint64_t id;
        uint32_t property_size;
        uint32_t property_hash; /* of a long one: 1,024 that differ at their ends are not compared whole */
        char property[];
};

TAILQ_HEAD(binding_list, binding);

/* Who finds what is saved: the agents of a user, of one epoch. 0 is no epoch. */
struct scope {
        uid_t uid;
        uint64_t epoch;
};

static inline bool scope_equal(struct scope a, struct scope b) {
        return a.uid == b.uid && a.epoch == b.epoch;
}

enum label_kind {
        LABEL_DESTINATION,
        LABEL_ENDPOINT,
        _LABEL_KIND_MAX,
};

/* An endpoint or a destination: the label of a scope, and the entries saved under it. It lives as long as something holds it:
 * a connection holds its endpoint, a binding its destination and its endpoint. */
struct label {
        struct table_entry by_text;
        union {
                struct connection_list connections; /* an endpoint's that are parked, first saved first */
                struct binding_list bindings;       /* a destination's, first saved first */
        };
        struct scope scope;
        uint32_t size;
        uint32_t n_holders; /* connections, lent ones too, and bindings */
        uint32_t n_parked;  /* connections of an endpoint that are parked */
        uint32_t row;       /* a hint of busiest_look() */
        uint64_t last;      /* of an endpoint: the last that happened since it is there, past_pack(), or 0 */
        char text[];
};

/* The details of a connection to save. Times are in µs, on the clock of the lookups. */
struct connection_details {
        uint64_t id;        /* 0 for a new connection, otherwise its id in the process before */
        struct scope scope; /* part of the identity of its endpoint */
        uid_t saved_by;     /* on whose account it is */
        uint64_t cookie;    /* identifies the socket (SO_COOKIE); 0 where it is not known */
        struct slice endpoint;
        struct slice property;
        struct slice farewell;
        uint64_t ttl_us;
        uint64_t deadline_us;
        int fd;
};

struct binding_details {
        uint64_t id;
        struct scope scope;
        uid_t saved_by;
        struct slice destination;
        struct slice property;
        struct slice endpoint;
        uint64_t ttl_us;
        uint64_t deadline_us;
};

/* 0 is "no limit". */
struct cache_limits {
        uint64_t connections;
        uint64_t bytes;   /* of memory for all entries and the history */
        uint64_t history; /* labels of which the last that happened is remembered; here, 0 is none */
};

struct cache_counts {
        uint64_t connections; /* parked */
        uint64_t lent;
        uint64_t bindings;
        uint64_t endpoints; /* that have a connection */
        uint64_t destinations;
        uint64_t bytes;         /* of all entries */
        uint64_t history_bytes; /* of the history and the busiest labels */
        /* At a limit, since the start: */
        uint64_t connections_let_go;
        uint64_t bindings_let_go;
};

/* The contents of records. Slices are valid until the cache changes. */

static inline struct slice label_text(const struct label *label) {
        return (struct slice){ label->text, label->size };
}

static inline struct slice binding_property(const struct binding *binding) {
        return (struct slice){ binding->property, binding->property_size };
}

/* For how long a connection that is parked, or has just been found, was parked at NOW, in µs. */
static inline uint64_t connection_idle(const struct connection *connection, uint64_t now_us) {
        const struct deadline *deadline = &connection->deadline;
        uint64_t left_us = deadline->at_us > now_us ? deadline->at_us - now_us : 0;
        uint64_t ttl_us = deadline->queue ? deadline_ttl(deadline) : 0;

        return ttl_us > left_us ? ttl_us - left_us : 0;
}

static inline struct slice connection_property(const struct connection *connection) {
        return (struct slice){ connection->bytes, connection->property_size };
}

static inline struct slice connection_farewell(const struct connection *connection) {
        return (struct slice){ connection->bytes + connection->property_size + 1,
                connection->farewell_size };
}
