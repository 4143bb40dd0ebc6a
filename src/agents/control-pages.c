/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agents/control-pages.h"

#include <errno.h>
#include <fnmatch.h>

#include "agents/control-cursor.h"
#include "agents/control-user.h"
#include "base/cleanup.h"

/* What one request may come to: entries and places in the table looked at, entries in an answer, bytes of it (of which
 * a single entry may need more), and connections let go of. It keeps everyone else waiting for well below 1 ms. */
#define VISITS_MAX       1024
#define PAGE_ENTRIES_MAX 256
#define PAGE_BYTES_MAX   ((size_t) 32 * 1024)
#define FLUSH_MAX        64

enum kind {
        KIND_CONNECTIONS,
        KIND_BINDINGS,
};

/* The arguments of a request. */
struct query {
        enum kind kind;
        struct control_cursor cursor;
        const char *endpoint; /* globs, or NULL for any */
        const char *destination;
        struct control_user user;
};

/* A page in the making. */
struct page {
        const struct query *query;
        struct server *server;
        size_t bytes_max;
        size_t n_entries;
        bool is_full;
        bool skips;                    /* until the binding `cursor.after_id` has come by */
        struct control_cursor *cursor; /* where the walk is */
        struct control_cursor next;    /* where the next page begins, if this one is full */
        const struct connection *rest; /* the last one that was come by, and stays */
        size_t n_visits;               /* to bindings */
        struct connection *chosen[FLUSH_MAX];
};

static int parse_attribute(struct query *query, struct slice name, struct slice value) {
        if (slice_equal(name, SLICE("kind"))) {
                query->kind = slice_equal(value, SLICE("bindings")) ? KIND_BINDINGS : KIND_CONNECTIONS;
                return query->kind == KIND_CONNECTIONS && !slice_equal(value, SLICE("connections")) ? -EINVAL
                                                                                                    : 0;
        }
        if (slice_equal(name, SLICE("cursor")))
                return control_cursor_parse(value, &query->cursor);
        if (slice_equal(name, SLICE("user")))
                return control_user_parse(value, &query->user);
        if (slice_equal(name, SLICE("endpoint"))) {
                query->endpoint = value.data;
                return 0;
        }
        if (slice_equal(name, SLICE("destination"))) {
                query->destination = value.data;
                return 0;
        }
        return -EINVAL;
}

static int parse_query(const struct wire_list *list, const uid_t *only_user, struct query *ret) {
        struct query query = {};
        int r;

        if (list->n_attributes > WIRE_ATTRIBUTES_MAX)
                return -EINVAL;
        for (size_t i = 1; i < list->n_attributes; i++) {
                r = parse_attribute(&query, wire_list_name(list, i), wire_list_value(list, i));
                if (r < 0)
                        return r;
        }
        /* A connection does not know the destinations that lead to it. */
        if (query.kind == KIND_CONNECTIONS && query.destination)
                return -EINVAL;
        r = control_user_restrict(&query.user, only_user);
        if (r < 0)
                return r;

        *ret = query;
        return 0;
}

static bool matches(const char *glob, struct slice label) {
        return !glob || fnmatch(glob, label.data, 0) == 0;
}

static bool is_wanted(const struct query *query, uid_t user, struct slice endpoint) {
        return control_user_matches(&query->user, user) && matches(query->endpoint, endpoint);
}

/* Since when and for how long an entry is there. */
static int put_times(struct wire_buffer *buffer, const struct deadline *deadline, uint64_t now_us) {
        uint64_t left_us = deadline->at_us > now_us ? deadline->at_us - now_us : 0;
        uint64_t ttl_us = deadline_ttl(deadline);
        int r;

        r = wire_put_number(buffer, SLICE("age_us"), ttl_us > left_us ? ttl_us - left_us : 0);
        return r < 0 ? r : wire_put_number(buffer, SLICE("remaining_us"), left_us);
}

static int put_connection(struct page *page, const struct connection *connection) {
        struct wire_buffer *buffer = &page->server->scratch;
        int r;

        r = wire_put(buffer, SLICE("endpoint"), label_text(connection->endpoint));
        if (r >= 0)
                r = wire_put_number(buffer, SLICE("user"), connection->uid);
        if (r >= 0)
                r = put_times(buffer, &connection->deadline, loop_now(page->server->loop));
        return r;
}

static int put_binding(struct page *page, const struct binding *binding) {
        struct wire_buffer *buffer = &page->server->scratch;
        int r;

        r = wire_put(buffer, SLICE("destination"), label_text(binding->destination));
        if (r >= 0)
                r = wire_put(buffer, SLICE("endpoint"), label_text(binding->endpoint));
        /* If users share, a binding has no user. */
        if (r >= 0 && !page->server->settings->share_between_users)
                r = wire_put_number(buffer, SLICE("user"), binding->destination->scope.uid);
        if (r >= 0)
                r = put_times(buffer, &binding->deadline, loop_now(page->server->loop));
        return r;
}

/* The page takes no more: the entry at hand is the first of the next one. */
static void close_page(struct page *page) {
        page->is_full = true;
        page->next = *page->cursor;
        if (page->rest)
                cache_cursor_rest(page->server->cache, &page->next.at, page->rest);
}

/* An entry was put to a page whose bytes ended at BEFORE, with result R. Returns whether it stays. */
static bool keep_entry(struct page *page, size_t before, int r) {
        struct wire_buffer *buffer = &page->server->scratch;

        if (r >= 0 && (wire_buffer_fill(buffer) <= page->bytes_max || page->n_entries == 0)) {
                page->n_entries++;
                return true;
        }

        /* One that has no room even alone (labels were allowed to be longer before a reload, or memory is short) is left
         * out: the walk would never get past it. */
        buffer->end = buffer->start + before;
        if (page->n_entries > 0)
                close_page(page);
        return false;
}

static void on_connection(void *userdata, struct connection *connection) {
        struct page *page = userdata;
        size_t before = wire_buffer_fill(&page->server->scratch);

        if (page->is_full)
                return;

        if (is_wanted(page->query, connection->uid, label_text(connection->endpoint))) {
                if (page->n_entries >= PAGE_ENTRIES_MAX)
                        close_page(page);
                else
                        (void) keep_entry(page, before, put_connection(page, connection));
        }
        page->rest = connection;
}

static void on_binding(void *userdata, struct binding *binding) {
        struct page *page = userdata;
        size_t before = wire_buffer_fill(&page->server->scratch);

        page->n_visits++;
        if (page->skips) {
                page->skips = binding->id != page->query->cursor.after_id;
                return;
        }
        if (page->is_full ||
                !is_wanted(page->query, binding->destination->scope.uid, label_text(binding->endpoint)) ||
                !matches(page->query->destination, label_text(binding->destination)))
                return;

        if (page->n_entries >= PAGE_ENTRIES_MAX)
                close_page(page);
        else if (keep_entry(page, before, put_binding(page, binding)))
                page->cursor->after_id = binding->id;
}

struct search {
        uint64_t id;
        bool found;
};

static void on_searched(void *userdata, struct binding *binding) {
        struct search *search = userdata;

        search->found = search->found || binding->id == search->id;
}

/* Walk the buckets of the bindings one by one: a page may end within one, of which the walk itself knows nothing. */
static bool walk_bindings(struct page *page) {
        const struct cache *cache = page->server->cache;
        struct search search = { .id = page->cursor->after_id };
        bool is_more = true;

        /* Where the last page ended within a bucket, go on behind its last entry; if that is gone, show the bucket
         * again. */
        if (search.id > 0) {
                struct cache_cursor at = page->cursor->at;

                (void) cache_walk_bindings(cache, &at, 1, on_searched, &search);
                page->skips = search.found;
        }

        for (size_t i = 0; i + page->n_visits < VISITS_MAX && is_more && !page->is_full; i++) {
                is_more = cache_walk_bindings(cache, &page->cursor->at, 1, on_binding, page);
                page->skips = false;
                page->cursor->after_id = 0;
        }
        return is_more;
}

static int put_cursor(struct wire_buffer *buffer, const struct control_cursor *cursor) {
        char text[CONTROL_CURSOR_TEXT_MAX];

        control_cursor_format(cursor, text);
        return wire_put(buffer, SLICE("cursor"), slice_of(text));
}

int control_list(struct server *server, const struct wire_list *list, const uid_t *only_user) {
        struct query query;
        struct control_cursor cursor;
        struct page page = {
                .query = &query,
                .server = server,
                /* Not more than an agent's output has room for. */
                .bytes_max = MIN(PAGE_BYTES_MAX, (size_t) server->settings->request_size_limit),
                .cursor = &cursor,
        };
        bool is_more;
        int r;

        r = parse_query(list, only_user, &query);
        if (r < 0)
                return r;

        cursor = query.cursor;
        if (query.kind == KIND_BINDINGS)
                is_more = walk_bindings(&page);
        else
                is_more =
                        cache_walk_connections(server->cache, &cursor.at, VISITS_MAX, on_connection, &page);

        if (!page.is_full && !is_more)
                return 0;
        return put_cursor(&server->scratch, page.is_full ? &page.next : &cursor);
}

static void on_flushed(void *userdata, struct connection *connection) {
        struct page *page = userdata;

        if (page->is_full)
                return;

        if (!is_wanted(page->query, connection->uid, label_text(connection->endpoint)))
                page->rest = connection;
        else if (page->n_entries >= FLUSH_MAX)
                close_page(page);
        else
                page->chosen[page->n_entries++] = connection;
}

int control_flush(struct server *server, const struct wire_list *list, const uid_t *only_user) {
        struct query query;
        struct control_cursor cursor;
        struct page page = { .query = &query, .server = server, .cursor = &cursor };
        bool is_more;
        int r;

        r = parse_query(list, only_user, &query);
        if (r < 0)
                return r;
        if (query.kind != KIND_CONNECTIONS)
                return -EINVAL;

        cursor = query.cursor;
        cache_tell_time(server->cache, loop_now(server->loop));
        is_more = cache_walk_connections(server->cache, &cursor.at, VISITS_MAX, on_flushed, &page);
        /* Not behind one that is let go of: behind one that stays, or where this page began. */
        if (page.rest)
                cache_cursor_rest(server->cache, &cursor.at, page.rest);
        else if (page.n_entries > 0) {
                cursor.at.id = query.cursor.at.id;
                cursor.at.cookie = query.cursor.at.cookie;
        }
        for (size_t i = 0; i < page.n_entries; i++)
                cache_let_go(server->cache, page.chosen[i], DEPARTURE_FLUSHED);

        r = wire_put_number(&server->scratch, SLICE("flushed"), page.n_entries);
        if (r < 0 || (!page.is_full && !is_more))
                return r;
        return put_cursor(&server->scratch, page.is_full ? &page.next : &cursor);
}
