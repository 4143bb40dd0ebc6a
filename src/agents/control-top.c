/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agents/control-top.h"

#include <errno.h>
#include <stdio.h>

#include "agents/control-user.h"
#include "base/cleanup.h"
#include "base/clock.h"

/* What one request may come to. Each destination may have some bindings looked at. */
#define PAGE_ROWS_MAX  64
#define PAGE_BYTES_MAX ((size_t) 32 * 1024)

/* What is asked for. */
struct query {
        enum label_kind kind;
        uint64_t cursor; /* the number of the first row */
        struct control_user user;
};

static int parse_query(const struct wire_list *list, const uid_t *only_user, struct query *ret) {
        struct query query = { .kind = _LABEL_KIND_MAX };
        int r = 0;

        if (list->n_attributes > WIRE_ATTRIBUTES_MAX)
                return -EINVAL;
        for (size_t i = 1; r >= 0 && i < list->n_attributes; i++) {
                struct slice name = wire_list_name(list, i), value = wire_list_value(list, i);

                if (slice_equal(name, SLICE("kind")))
                        query.kind = slice_equal(value, SLICE("destinations")) ? LABEL_DESTINATION
                                : slice_equal(value, SLICE("endpoints"))       ? LABEL_ENDPOINT
                                                                               : _LABEL_KIND_MAX;
                else if (slice_equal(name, SLICE("cursor")))
                        r = wire_number(value, &query.cursor);
                else if (slice_equal(name, SLICE("user")))
                        r = control_user_parse(value, &query.user);
                else
                        r = -EINVAL;
        }
        if (r < 0 || query.kind == _LABEL_KIND_MAX)
                return -EINVAL;

        r = control_user_restrict(&query.user, only_user);
        if (r < 0)
                return r;

        *ret = query;
        return 0;
}

static int put_misses(struct wire_buffer *buffer, const struct busiest_row *row) {
        int r = 0;

        for (enum reason reason = 0; r >= 0 && reason < _REASON_MAX; reason++) {
                char name[32];

                if (row->misses[reason] == 0)
                        continue;
                (void) snprintf(name, sizeof(name), "misses_%s", reason_name(reason));
                r = wire_put_number(buffer, slice_of(name), row->misses[reason]);
        }
        return r;
}

static int put_row(struct server *server, enum label_kind kind, const struct busiest_row *row) {
        struct wire_buffer *buffer = &server->scratch;
        uint64_t now_us = loop_now(server->loop);
        int r;

        r = wire_put(buffer, kind == LABEL_DESTINATION ? SLICE("destination") : SLICE("endpoint"),
                (struct slice){ row->label, MIN(row->label_size, sizeof(row->label)) });
        if (r >= 0 && row->label_size > sizeof(row->label))
                r = wire_put_number(buffer, SLICE("label_size"), row->label_size);
        /* Where users share, it is nobody's. */
        if (r >= 0 && !server->settings->share_between_users)
                r = wire_put_number(buffer, SLICE("user"), row->scope.uid);
        if (r >= 0)
                r = wire_put_number(
                        buffer, SLICE("age_us"), now_us > row->since_us ? now_us - row->since_us : 0);
        if (r >= 0)
                r = wire_put_number(buffer, SLICE("error"), row->error);
        if (r >= 0)
                r = wire_put_number(buffer, SLICE("parked"), cache_count_parked(server->cache, kind, row));
        if (r >= 0)
                r = wire_put_number(buffer, SLICE("hits"), row->hits);
        if (r >= 0)
                r = put_misses(buffer, row);
        if (r >= 0 && kind == LABEL_ENDPOINT)
                r = wire_put_number(buffer, SLICE("dead"), row->dead);
        return r;
}

int control_top(struct server *server, const struct wire_list *list, const uid_t *only_user) {
        struct wire_buffer *buffer = &server->scratch;
        /* Not more than an agent's output has room for. */
        size_t bytes_max = MIN(PAGE_BYTES_MAX, (size_t) server->settings->request_size_limit), n_rows = 0;
        const struct busiest *busiest;
        struct query query;
        int r;

        r = parse_query(list, only_user, &query);
        if (r < 0)
                return r;

        busiest = cache_busiest(server->cache, query.kind);
        r = wire_put_number(buffer, SLICE("rows_max"), busiest->rows_max);
        for (size_t i = (size_t) query.cursor; r >= 0 && i < busiest->n_rows; i++) {
                const struct busiest_row *row = busiest->rows[i];
                size_t before = wire_buffer_fill(buffer);

                if (!control_user_matches(&query.user, row->scope.uid))
                        continue;

                r = put_row(server, query.kind, row);
                if (r < 0 || (++n_rows <= PAGE_ROWS_MAX && wire_buffer_fill(buffer) <= bytes_max))
                        continue;

                /* It is the first one of the next page. */
                buffer->end = buffer->start + before;
                return wire_put_number(buffer, SLICE("cursor"), i);
        }
        return r;
}
