/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/cache.h"
#include "cache/reasons.h"

/* A destination that missed is judged by so many of its bindings, the first ones. */
#define BINDINGS_JUDGED 64

/* The last that happened to an endpoint, or 0. */
static uint64_t last_of(const struct cache *cache, const struct label *endpoint, uint64_t key) {
        uint64_t none;

        return endpoint && endpoint->last != 0 ? endpoint->last : past_find(&cache->past, key, &none);
}

/* A verdict in the making: of two things, the one that happened last. */
struct verdict {
        const struct cache *cache;
        uint64_t epoch; /* of who looks */
        uint64_t at_us;
        struct cache_miss *miss;
};

static void judge(struct verdict *verdict, const struct past_entry *entry) {
        uint64_t now_us = verdict->cache->now_us;
        enum reason reason = entry->reason;

        if (entry->at_us <= verdict->at_us)
                return;
        if (entry->epoch != past_epoch(verdict->epoch))
                reason = REASON_OUTDATED;
        else if (reason == REASON_THERE)
                reason = REASON_UNKNOWN;

        verdict->at_us = entry->at_us;
        *verdict->miss = (struct cache_miss){
                .reason = reason,
                .ago_us = now_us > entry->at_us ? now_us - entry->at_us : 0,
        };
}

static void judge_endpoint(struct verdict *verdict, const struct label *endpoint, uint64_t key) {
        uint64_t word = last_of(verdict->cache, endpoint, key);
        struct past_entry entry = past_unpack(word);

        if (word != 0)
                judge(verdict, &entry);
}

/* A binding has come to its end as ENTRY says. Where its endpoint has a connection, that is why there was no way to it; where it
 * has none, the last that happened to the endpoint is. */
static void judge_former(struct verdict *verdict, const struct past_entry *entry) {
        const struct cache *cache = verdict->cache;
        uint64_t key = entry->endpoint;
        const struct label *endpoint = label_find_key(cache, LABEL_ENDPOINT, key, verdict->epoch);

        if ((endpoint && endpoint->n_parked > 0) || last_of(cache, endpoint, key) == 0)
                judge(verdict, entry);
        else
                judge_endpoint(verdict, endpoint, key);
}

static void judge_destination(struct verdict *verdict, const struct label *destination, uint64_t key) {
        const struct cache *cache = verdict->cache;
        struct past_entry entry;
        struct binding *binding;
        uint64_t word, endpoint;
        unsigned n = 0;

        if (destination)
                TAILQ_FOREACH (binding, &destination->bindings, siblings) {
                        if (n++ == BINDINGS_JUDGED)
                                break;
                        endpoint = label_key(binding->endpoint, LABEL_ENDPOINT);
                        if (binding->deadline.at_us > cache->now_us) {
                                judge_endpoint(verdict, binding->endpoint, endpoint);
                                continue;
                        }
                        entry = (struct past_entry){ REASON_EXPIRED, binding->deadline.at_us,
                                past_epoch(verdict->epoch), endpoint };
                        judge_former(verdict, &entry);
                }
        if (n > 0)
                return;

        word = past_find(&cache->past, key, &endpoint);
        if (word != 0) {
                entry = past_unpack(word);
                entry.endpoint = endpoint;
                judge_former(verdict, &entry);
        }
}

void cache_explain_miss(struct cache *cache, enum label_kind kind, struct scope scope, struct slice text,
        uint64_t now_us, bool is_over, struct cache_miss *ret) {
        struct label *label;
        struct busiest_row *row;
        struct verdict verdict = { cache, scope.epoch, 0, ret };
        uint64_t key;
        uint32_t hint = 0;

        *ret = (struct cache_miss){ .reason = is_over ? REASON_OUTDATED : REASON_UNKNOWN };
        if (cache->limits.history == 0)
                return;

        cache->now_us = now_us;
        key = label_key_of(cache, kind, scope.uid, text);
        label = label_find_key(cache, kind, key, scope.epoch);
        if (!is_over && kind == LABEL_ENDPOINT)
                judge_endpoint(&verdict, label, key);
        else if (!is_over)
                judge_destination(&verdict, label, key);

        row = reasons_look(cache, kind, key, scope, text, label ? &label->row : &hint);
        if (row)
                row->misses[ret->reason]++;
}

void cache_tell_time(struct cache *cache, uint64_t now_us) {
        cache->now_us = now_us;
}

struct cache_taking cache_taking(const struct cache *cache, const struct connection *connection) {
        return (struct cache_taking){ label_key(connection->endpoint, LABEL_ENDPOINT),
                connection->endpoint->scope.epoch, cache->now_us };
}

void cache_note_used(struct cache *cache, const struct cache_taking *taking, uint64_t now_us) {
        struct label *endpoint = label_find_key(cache, LABEL_ENDPOINT, taking->key, taking->epoch);
        uint64_t word = last_of(cache, endpoint, taking->key);
        struct past_entry entry = past_unpack(word);

        if (word == 0 || entry.reason != REASON_BUSY || entry.at_us != taking->at_us)
                return;

        entry.reason = REASON_USED;
        entry.at_us = now_us;
        if (endpoint && endpoint->last != 0)
                endpoint->last = past_pack(&entry);
        else
                past_note(&cache->past, taking->key, past_pack(&entry), 0);
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
