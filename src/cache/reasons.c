/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/reasons.h"

#include "cache/cache.h"

/* The history takes no more than this part of the memory that the cache may use, and the busiest labels of each kind no more than
 * that, whatever is allowed otherwise. */
#define HISTORY_PART 10
#define BUSIEST_PART 80

/* Rows of each kind. */
#define BUSIEST_ROWS 512

/* A destination that missed is judged by so many of its bindings, the first ones. */
#define BINDINGS_JUDGED 64

void reasons_set_limit(struct cache *cache) {
        uint64_t limit = cache->limits.history, bytes = cache->limits.bytes;
        uint64_t n = limit, rows = limit > 0 ? BUSIEST_ROWS : 0;

        if (bytes > 0) {
                n = MIN(n, bytes / HISTORY_PART / sizeof(struct past_set) * HISTORY_WAYS);
                rows = MIN(rows, bytes / BUSIEST_PART / sizeof(struct busiest_row));
        }

        past_set_limit(&cache->past, n);
        for (unsigned kind = 0; kind < _LABEL_KIND_MAX; kind++)
                busiest_set_limit(&cache->busiest[kind], rows);
        reasons_grow(cache);
}

void reasons_deinit(struct cache *cache) {
        past_deinit(&cache->past);
        for (unsigned kind = 0; kind < _LABEL_KIND_MAX; kind++)
                busiest_deinit(&cache->busiest[kind]);
}

static void note_memory(struct cache *cache) {
        cache->counts.history_bytes = past_bytes(&cache->past) +
                busiest_bytes(&cache->busiest[LABEL_DESTINATION]) +
                busiest_bytes(&cache->busiest[LABEL_ENDPOINT]);
}

void reasons_grow(struct cache *cache) {
        past_grow(&cache->past);
        note_memory(cache);
}

void reasons_parked(struct cache *cache, const struct label *endpoint) {
        const struct past_entry entry = {
                .reason = REASON_THERE,
                .at_us = cache->now_us,
                .epoch = past_epoch(endpoint->scope.epoch),
        };

        past_note(&cache->past, label_key(endpoint, LABEL_ENDPOINT), &entry);
}

static void note_binding(struct cache *cache, const struct binding *binding, enum reason reason) {
        const struct past_entry entry = {
                .reason = reason,
                .at_us = cache->now_us,
                .epoch = past_epoch(binding->destination->scope.epoch),
                .detail = label_key(binding->endpoint, LABEL_ENDPOINT),
        };

        past_note(&cache->past, label_key(binding->destination, LABEL_DESTINATION), &entry);
}

void reasons_bound(struct cache *cache, const struct binding *binding) {
        note_binding(cache, binding, REASON_THERE);
}

void reasons_unbound(struct cache *cache, const struct binding *binding, enum reason reason) {
        note_binding(cache, binding, reason);
}

void reasons_ended(struct cache *cache, struct connection *connection, enum reason reason) {
        struct label *endpoint = connection->endpoint;
        uint64_t key = label_key(endpoint, LABEL_ENDPOINT);
        const struct past_entry entry = {
                .reason = reason,
                .at_us = cache->now_us,
                .epoch = past_epoch(endpoint->scope.epoch),
                .detail = connection_idle(connection, cache->now_us),
        };

        past_note(&cache->past, key, &entry);
        if (reason == REASON_DEAD) {
                struct busiest_row *row = busiest_find(&cache->busiest[LABEL_ENDPOINT], key, &endpoint->row);

                if (row)
                        row->dead++;
        }
}

/* A label is looked up. Returns its row among the busiest, or NULL. */
static struct busiest_row *look(struct cache *cache, enum label_kind kind, uint64_t key, struct scope scope,
        struct slice text, uint32_t *hint) {
        struct busiest *busiest = &cache->busiest[kind];
        size_t n_rows = busiest->n_rows;
        struct busiest_row *row = busiest_look(busiest, key, scope, text, cache->now_us, hint);

        if (busiest->n_rows != n_rows)
                note_memory(cache);
        return row;
}

static struct busiest_row *look_at(struct cache *cache, enum label_kind kind, struct label *label) {
        return look(cache, kind, label_key(label, kind), label->scope, label_text(label), &label->row);
}

void reasons_found(struct cache *cache, struct label *destination, struct connection *connection) {
        struct label *endpoint = connection->endpoint;
        const struct past_entry entry = {
                .reason = REASON_BUSY,
                .at_us = cache->now_us,
                .epoch = past_epoch(endpoint->scope.epoch),
        };
        struct busiest_row *row;

        if (cache->limits.history == 0)
                return;

        past_note(&cache->past, label_key(endpoint, LABEL_ENDPOINT), &entry);
        row = look_at(cache, LABEL_ENDPOINT, endpoint);
        if (row) {
                row->taken++;
                row->hits += !destination;
        }
        if (destination) {
                row = look_at(cache, LABEL_DESTINATION, destination);
                if (row)
                        row->hits++;
        }
}

/* What the history says of a label that an agent of EPOCH looks for and does not find; of two things, the last. */
static void judge(const struct cache *cache, const struct past_entry *entry, uint64_t epoch,
        struct cache_miss *miss, uint64_t *at_us) {
        enum reason reason = entry->reason;

        if (entry->at_us <= *at_us)
                return;
        if (entry->epoch != past_epoch(epoch))
                reason = REASON_OUTDATED;
        else if (reason == REASON_THERE)
                reason = REASON_UNKNOWN;

        *at_us = entry->at_us;
        *miss = (struct cache_miss){
                .reason = reason,
                .ago_us = cache->now_us > entry->at_us ? cache->now_us - entry->at_us : 0,
                .idle_us = entry->detail,
        };
}

static void judge_endpoint(
        const struct cache *cache, uint64_t key, uint64_t epoch, struct cache_miss *miss, uint64_t *at_us) {
        struct past_entry entry;

        if (past_find(&cache->past, key, &entry))
                judge(cache, &entry, epoch, miss, at_us);
}

/* A binding has come to its end as ENTRY says. Where its endpoint has a connection, that is why there was no way to it; where it
 * has none, the last that happened to the endpoint is. */
static void judge_former(const struct cache *cache, const struct past_entry *entry, uint64_t epoch,
        struct cache_miss *miss, uint64_t *at_us) {
        const struct label *endpoint = label_find_key(cache, LABEL_ENDPOINT, entry->detail, epoch);
        struct past_entry binding = *entry, connection;

        if ((endpoint && endpoint->n_parked > 0) || !past_find(&cache->past, entry->detail, &connection)) {
                binding.detail = 0;
                judge(cache, &binding, epoch, miss, at_us);
        } else
                judge(cache, &connection, epoch, miss, at_us);
}

static void judge_destination(const struct cache *cache, const struct label *destination, uint64_t key,
        uint64_t epoch, struct cache_miss *miss) {
        struct past_entry entry;
        struct binding *binding;
        uint64_t at_us = 0;
        unsigned n = 0;

        if (destination)
                TAILQ_FOREACH (binding, &destination->bindings, siblings) {
                        uint64_t endpoint = label_key(binding->endpoint, LABEL_ENDPOINT);

                        if (n++ == BINDINGS_JUDGED)
                                break;
                        if (binding->deadline.at_us > cache->now_us) {
                                judge_endpoint(cache, endpoint, epoch, miss, &at_us);
                                continue;
                        }
                        entry = (struct past_entry){ REASON_EXPIRED, binding->deadline.at_us,
                                past_epoch(epoch), endpoint };
                        judge_former(cache, &entry, epoch, miss, &at_us);
                }
        if (n == 0 && past_find(&cache->past, key, &entry))
                judge_former(cache, &entry, epoch, miss, &at_us);
}

void cache_explain_miss(struct cache *cache, enum label_kind kind, struct scope scope, struct slice text,
        uint64_t now_us, bool is_over, struct cache_miss *ret) {
        struct label *label;
        struct busiest_row *row;
        uint64_t key, at_us = 0;
        uint32_t hint = 0;

        *ret = (struct cache_miss){ .reason = is_over ? REASON_OUTDATED : REASON_UNKNOWN };
        if (cache->limits.history == 0)
                return;

        cache->now_us = now_us;
        key = label_key_of(cache, kind, scope.uid, text);
        label = label_find_key(cache, kind, key, scope.epoch);
        if (!is_over && kind == LABEL_ENDPOINT)
                judge_endpoint(cache, key, scope.epoch, ret, &at_us);
        else if (!is_over)
                judge_destination(cache, label, key, scope.epoch, ret);

        row = look(cache, kind, key, scope, text, label ? &label->row : &hint);
        if (row)
                row->misses[ret->reason]++;
}

void cache_tell_time(struct cache *cache, uint64_t now_us) {
        cache->now_us = now_us;
}

void cache_note_used(struct cache *cache, const struct cache_taking *taking, uint64_t now_us) {
        struct past_entry entry;

        if (!past_find(&cache->past, taking->key, &entry) || entry.reason != REASON_BUSY ||
                entry.at_us != taking->at_us)
                return;

        entry.reason = REASON_USED;
        entry.at_us = now_us;
        past_note(&cache->past, taking->key, &entry);
}

struct cache_taking cache_taking(const struct cache *cache, const struct connection *connection) {
        return (struct cache_taking){ label_key(connection->endpoint, LABEL_ENDPOINT), cache->now_us };
}

const struct busiest *cache_busiest(const struct cache *cache, enum label_kind kind) {
        return &cache->busiest[kind];
}

/* Two bindings of a destination may differ in their properties alone. */
static bool is_bound_before(const struct binding *binding) {
        const struct binding *before = TAILQ_FIRST(&binding->destination->bindings);

        while (before != binding && before->endpoint != binding->endpoint)
                before = TAILQ_NEXT(before, siblings);
        return before != binding;
}

uint64_t cache_count_parked(const struct cache *cache, enum label_kind kind, const struct busiest_row *row) {
        const struct label *label = label_find_key(cache, kind, row->by_key.hash, row->scope.epoch);
        const struct binding *binding;
        uint64_t n_parked = 0;
        unsigned n = 0;

        if (!label || kind == LABEL_ENDPOINT)
                return label ? label->n_parked : 0;

        TAILQ_FOREACH (binding, &label->bindings, siblings) {
                if (n++ == BINDINGS_JUDGED)
                        break;
                if (!is_bound_before(binding))
                        n_parked += binding->endpoint->n_parked;
        }
        return n_parked;
}
