/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/reasons.h"

/* The history takes no more than this part of the memory that the cache may use, and the busiest labels of each kind no more than
 * that, whatever is allowed otherwise. */
#define HISTORY_PART 10
#define BUSIEST_PART 80

/* Rows of each kind. */
#define BUSIEST_ROWS 512

static void note_memory(struct cache *cache) {
        cache->counts.history_bytes = past_bytes(&cache->past) +
                busiest_bytes(&cache->busiest[LABEL_DESTINATION]) +
                busiest_bytes(&cache->busiest[LABEL_ENDPOINT]);
}

void reasons_set_limit(struct cache *cache) {
        uint64_t limit = cache->limits.history, bytes = cache->limits.bytes;
        uint64_t rows = limit > 0 ? BUSIEST_ROWS : 0;

        if (bytes > 0)
                rows = MIN(rows, bytes / BUSIEST_PART / busiest_row_bytes());

        past_set_limit(&cache->past, limit, bytes / HISTORY_PART);
        for (unsigned kind = 0; kind < _LABEL_KIND_MAX; kind++)
                busiest_set_limit(&cache->busiest[kind], rows);
        past_grow(&cache->past);
        note_memory(cache);
}

void reasons_deinit(struct cache *cache) {
        past_deinit(&cache->past);
        for (unsigned kind = 0; kind < _LABEL_KIND_MAX; kind++)
                busiest_deinit(&cache->busiest[kind]);
}

void reasons_grow(struct cache *cache) {
        size_t n_segments = cache->past.n_segments;

        past_grow(&cache->past);
        if (cache->past.n_segments != n_segments)
                note_memory(cache);
}

/* REASON happens to a label now. */
static uint64_t word_now(const struct cache *cache, const struct label *label, enum reason reason) {
        const struct past_entry entry = {
                .reason = reason,
                .at_us = cache->now_us,
                .epoch = past_epoch(label->scope.epoch),
        };

        return past_pack(&entry);
}

/* An endpoint that is there keeps the last that happened to it itself, at hardly any cost. */
static void note_endpoint(struct cache *cache, struct label *endpoint, enum reason reason) {
        endpoint->last = cache->limits.history > 0 ? word_now(cache, endpoint, reason) : 0;
}

/* That it is there is to be known to those who look for it from another epoch. */
void reasons_parked(struct cache *cache, const struct label *endpoint) {
        if (endpoint->n_parked == 1 && endpoint->last == 0)
                past_note(&cache->past, label_key(endpoint, LABEL_ENDPOINT),
                        word_now(cache, endpoint, REASON_THERE), 0);
}

static void note_binding(struct cache *cache, const struct binding *binding, enum reason reason) {
        past_note(&cache->past, label_key(binding->destination, LABEL_DESTINATION),
                word_now(cache, binding->destination, reason), label_key(binding->endpoint, LABEL_ENDPOINT));
}

void reasons_bound(struct cache *cache, const struct binding *binding) {
        note_binding(cache, binding, REASON_THERE);
}

void reasons_unbound(struct cache *cache, const struct binding *binding, enum reason reason) {
        note_binding(cache, binding, reason);
}

void reasons_ended(struct cache *cache, const struct connection *connection, enum reason reason) {
        struct label *endpoint = connection->endpoint;
        struct busiest_row *row;

        note_endpoint(cache, endpoint, reason);
        if (reason != REASON_DEAD)
                return;
        row = busiest_find(
                &cache->busiest[LABEL_ENDPOINT], label_key(endpoint, LABEL_ENDPOINT), &endpoint->row);
        if (row)
                row->dead++;
}

struct busiest_row *reasons_look(struct cache *cache, enum label_kind kind, uint64_t key, struct scope scope,
        struct slice text, uint32_t *hint) {
        struct busiest *busiest = &cache->busiest[kind];
        size_t n_rows = busiest->n_rows;
        struct busiest_row *row = busiest_look(busiest, key, scope, text, cache->now_us, hint);

        if (busiest->n_rows != n_rows)
                note_memory(cache);
        return row;
}

static struct busiest_row *look_at(struct cache *cache, enum label_kind kind, struct label *label) {
        return reasons_look(
                cache, kind, label_key(label, kind), label->scope, label_text(label), &label->row);
}

void reasons_found(struct cache *cache, struct label *destination, const struct connection *connection) {
        struct label *endpoint = connection->endpoint;
        struct busiest_row *row;

        note_endpoint(cache, endpoint, REASON_BUSY);
        if (cache->limits.history == 0)
                return;

        row = look_at(cache, LABEL_ENDPOINT, endpoint);
        if (row)
                row->hits++;
        row = destination ? look_at(cache, LABEL_DESTINATION, destination) : NULL;
        if (row)
                row->hits++;
}
