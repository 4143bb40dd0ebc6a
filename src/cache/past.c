/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache/past.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* Sets come in segments, so that growing never copies them. */
#define SEGMENT_SETS UINT64_C(64)

/* It grows once its sets have so many entries on average. Those that are split last have twice as many by then, and few are full. */
#define WAYS_TAKEN 3

/* A word: 48 bits of time (µs since boot: nine years), 12 of the epoch, 4 of the reason, which is one higher there. */
#define TIME_MAX    ((UINT64_C(1) << 48) - 1)
#define EPOCH_SHIFT 4
#define TIME_SHIFT  16
#define REASON_BITS UINT64_C(0xf)
#define EPOCH_BITS  UINT64_C(0xfff)

_Static_assert(_REASON_MAX + 1 <= (int) REASON_BITS, "reasons fit into their bits");
_Static_assert(sizeof(struct past_set) == 3 * 64, "a set has whole lines of the processor's cache");

const char *reason_name(enum reason reason) {
        static const char *const names[_REASON_MAX] = {
                [REASON_UNKNOWN] = "unknown",
                [REASON_EXPIRED] = "expired",
                [REASON_DEAD] = "dead",
                [REASON_EVICTED] = "evicted",
                [REASON_FLUSHED] = "flushed",
                [REASON_REPLACED] = "replaced",
                [REASON_OUTDATED] = "outdated",
                [REASON_BUSY] = "busy",
                [REASON_USED] = "used",
        };

        return names[reason];
}

/* The sets are the 2^k of the current round and those split off from its first ones so far. */
static uint64_t set_number(uint64_t n_sets, uint64_t key) {
        uint64_t round = UINT64_C(1) << (63 - __builtin_clzll(n_sets)), number = key & (2 * round - 1);

        return number < n_sets ? number : key & (round - 1);
}

static struct past_set *set_at(const struct past *past, uint64_t number) {
        return &past->segments[number / SEGMENT_SETS][number % SEGMENT_SETS];
}

static struct past_set *set_of(const struct past *past, uint64_t key) {
        return set_at(past, set_number(past->n_sets, key));
}

void past_deinit(struct past *past) {
        for (size_t i = 0; i < past->n_segments; i++)
                free(past->segments[i]);
        free(past->segments);
        *past = (struct past){};
}

void past_set_limit(struct past *past, uint64_t limit, uint64_t bytes) {
        uint64_t sets_max = (limit + PAST_WAYS - 1) / PAST_WAYS;

        if (bytes > 0)
                sets_max = MIN(sets_max, bytes / (SEGMENT_SETS * sizeof(struct past_set)) * SEGMENT_SETS);
        if (sets_max < past->n_sets)
                past_deinit(past);
        past->sets_max = sets_max;
}

/* Get memory for the set with the number N_SETS. */
static bool add_segment(struct past *past) {
        struct past_set **segments, *segment;

        segments = reallocarray(past->segments, past->n_segments + 1, sizeof(struct past_set *));
        if (!segments)
                return false;
        past->segments = segments;

        segment = aligned_alloc(64, SEGMENT_SETS * sizeof(*segment));
        if (!segment)
                return false;
        memset(segment, 0, SEGMENT_SETS * sizeof(*segment));
        segments[past->n_segments++] = segment;
        return true;
}

/* Add one set and move to it what belongs there from the one it splits. */
static void split(struct past *past) {
        uint64_t round = UINT64_C(1) << (63 - __builtin_clzll(past->n_sets));
        struct past_set *from = set_at(past, past->n_sets - round), *to;
        size_t n = 0;

        to = set_at(past, past->n_sets++);
        for (size_t i = 0; i < PAST_WAYS; i++) {
                if (from->words[i] == 0 || set_of(past, from->keys[i]) != to)
                        continue;
                to->keys[n] = from->keys[i];
                to->endpoints[n] = from->endpoints[i];
                to->words[n++] = from->words[i];
                from->words[i] = 0;
        }
}

void past_grow(struct past *past) {
        if (past->n_sets >= past->sets_max || past->n_entries < past->n_sets * WAYS_TAKEN)
                return;
        if (past->n_sets == past->n_segments * SEGMENT_SETS && !add_segment(past))
                return;

        /* The first sets are all there at once: there is nothing to split. */
        if (past->n_sets == 0)
                past->n_sets = MIN(SEGMENT_SETS, past->sets_max);
        else
                split(past);
}

uint64_t past_bytes(const struct past *past) {
        return past->n_segments * SEGMENT_SETS * sizeof(struct past_set);
}

/* The place of a key in a set; PAST_WAYS if it is not there. */
static size_t place_of(const struct past_set *set, uint64_t key) {
        size_t i = 0;

        while (i < PAST_WAYS && (set->keys[i] != key || set->words[i] == 0))
                i++;
        return i;
}

/* The place of what gives way: a free one, or the entry of longest ago. The time is in the first bits of a word. */
static size_t oldest_in(const struct past_set *set) {
        size_t oldest = 0;

        for (size_t i = 1; i < PAST_WAYS; i++)
                if (set->words[i] < set->words[oldest])
                        oldest = i;
        return oldest;
}

uint64_t past_pack(const struct past_entry *entry) {
        return MIN(entry->at_us, TIME_MAX) << TIME_SHIFT | (entry->epoch & EPOCH_BITS) << EPOCH_SHIFT |
                ((uint64_t) entry->reason + 1);
}

struct past_entry past_unpack(uint64_t word) {
        return (struct past_entry){
                .reason = (enum reason)((word & REASON_BITS) - 1),
                .at_us = word >> TIME_SHIFT,
                .epoch = (unsigned) (word >> EPOCH_SHIFT & EPOCH_BITS),
        };
}

void past_note(struct past *past, uint64_t key, uint64_t word, uint64_t endpoint) {
        struct past_set *set;
        size_t i;

        if (past->n_sets == 0)
                return;

        set = set_of(past, key);
        i = place_of(set, key);
        if (i == PAST_WAYS) {
                i = oldest_in(set);
                past->n_entries += set->words[i] == 0;
                set->keys[i] = key;
        }
        set->words[i] = word;
        set->endpoints[i] = endpoint;
}

uint64_t past_find(const struct past *past, uint64_t key, uint64_t *ret_endpoint) {
        const struct past_set *set;
        size_t i;

        if (past->n_sets == 0)
                return 0;

        set = set_of(past, key);
        i = place_of(set, key);
        if (i == PAST_WAYS)
                return 0;

        *ret_endpoint = set->endpoints[i];
        return set->words[i];
}
