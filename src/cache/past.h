/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cache: the last that happened to each label, for lookups that miss: a bounded memory of keyed hashes, without the labels */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A lookup misses because of the last that happened to its label. In the order in which they are shown. */
enum reason {
        REASON_UNKNOWN,  /* nothing that is remembered */
        REASON_EXPIRED,  /* its last connection, or its binding, came to the end of its time to live */
        REASON_DEAD,     /* the peer hung up or spoke */
        REASON_EVICTED,  /* at a limit */
        REASON_FLUSHED,  /* on request */
        REASON_REPLACED, /* the socket was parked again under another label */
        REASON_OUTDATED, /* it was parked in another epoch, or who looks is of one that is over */
        REASON_BUSY,     /* an agent has it */
        REASON_USED,     /* an agent had it, and did not park it again */
        _REASON_MAX,
        REASON_THERE = _REASON_MAX, /* in the history only: nothing has ended */
};

/* Return the word for a reason, the same in statistics, metrics and answers. */
const char *reason_name(enum reason reason);

/* What is remembered of a label. Times are in µs. */
struct past_entry {
        enum reason reason;
        uint64_t at_us;
        unsigned epoch;    /* past_epoch() */
        uint64_t endpoint; /* of a binding: the key of its endpoint */
};

/* Time, epoch and reason in one word, which is never 0. */
uint64_t past_pack(const struct past_entry *entry);
struct past_entry past_unpack(uint64_t word);

#define PAST_WAYS 8

/* One line of the processor's cache to look for a key. An entry is in use if its word is not 0. */
struct past_set {
        uint64_t keys[PAST_WAYS];
        uint64_t words[PAST_WAYS];
        uint64_t endpoints[PAST_WAYS];
};

/* Sets of eight, in each of which the entry of longest ago gives way. There are more of them as they fill, one at a time (linear
 * hashing, as in cache/table.h), until all entries together are the limit. All zero is a history that keeps nothing. */
struct past {
        struct past_set **segments;
        size_t n_segments;
        uint64_t n_sets;
        uint64_t sets_max;
        uint64_t n_entries;
};

/* Change how many labels are remembered, rounded up to a whole set; 0 is none. BYTES, if not 0, is the memory that they may take. If
 * there are fewer than before, all are forgotten. */
void past_set_limit(struct past *past, uint64_t limit, uint64_t bytes);

/* Release the memory. */
void past_deinit(struct past *past);

/* Make room for what comes next, if that is allowed and there is memory for it. */
void past_grow(struct past *past);

/* Return the memory that it takes, in bytes. */
uint64_t past_bytes(const struct past *past);

/* Return the name of an epoch in the history: few bits of it, so that two may have the same one. */
static inline unsigned past_epoch(uint64_t epoch) {
        return (unsigned) (epoch * UINT64_C(0x9e3779b97f4a7c15) >> 52);
}

/* Remember this word, and of a binding this endpoint, of the label with this key, instead of what was remembered so far. */
void past_note(struct past *past, uint64_t key, uint64_t word, uint64_t endpoint);

/* Return what is remembered of a label: the word, 0 if there is none. */
uint64_t past_find(const struct past *past, uint64_t key, uint64_t *ret_endpoint);
