/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cache: notes what happens to labels in the history and among the busiest, for this room only */
#pragma once

#include "cache/entries.h"

/* All of these do nothing where the history is off. */

/* Set how much is remembered, by the limits of the cache. */
void reasons_set_limit(struct cache *cache);
void reasons_deinit(struct cache *cache);

/* Something is to be saved: make room for what there may be to remember of it. */
void reasons_grow(struct cache *cache);

/* The first connection of an endpoint, or a binding, was saved. */
void reasons_parked(struct cache *cache, const struct label *endpoint);
void reasons_bound(struct cache *cache, const struct binding *binding);

/* A connection was found at NOW, of this destination, NULL if by its endpoint. */
void reasons_found(struct cache *cache, struct label *destination, const struct connection *connection);

/* A connection that is still in the cache, or a binding, comes to its end. */
void reasons_ended(struct cache *cache, const struct connection *connection, enum reason reason);
void reasons_unbound(struct cache *cache, const struct binding *binding, enum reason reason);

/* A label is looked up. Returns its row among the busiest, or NULL; HINT as in busiest_look(). */
struct busiest_row *reasons_look(struct cache *cache, enum label_kind kind, uint64_t key, struct scope scope,
        struct slice text, uint32_t *hint);
