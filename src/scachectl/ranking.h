/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: the busiest destinations or endpoints, as `top` shows them */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "scachectl/client.h"
#include "scachectl/options.h"

/* Why lookups miss, in the words of the service. */
#define RANKING_REASONS 9
extern const char *const ranking_reasons[RANKING_REASONS];

struct ranking_row {
        char *label; /* the first bytes of a long one */
        size_t size;
        uint64_t whole_size;
        bool has_user;
        uint64_t user;
        uint64_t age_us; /* since when it is counted */
        uint64_t error;  /* lookups that it may have had before, at most */
        uint64_t lookups;
        uint64_t hits; /* of an endpoint, also those by a destination */
        uint64_t misses[RANKING_REASONS];
        uint64_t parked;
        uint64_t dead; /* of an endpoint */
};

struct ranking {
        bool has_endpoints; /* not destinations */
        uint64_t rows_max;  /* that the service keeps; 0: it counts nothing */
        size_t n_rows;
        struct ranking_row *rows;
};

/* Ask for all rows that the service has, those of one user with --user. Returns negative errno as client_ask(). */
int ranking_fetch(
        struct ranking *ranking, struct client *client, bool endpoints, const struct options *options);
void ranking_release(struct ranking *ranking);

/* Make a ranking of what NOW has counted since BEFORE, or since ever if that is NULL. Its rows share the labels of NOW; the caller
 * frees only `rows`. Returns -ENOMEM. */
int ranking_since(struct ranking *ret, const struct ranking *now, const struct ranking *before);

/* Put the busiest first. */
void ranking_sort(struct ranking *ranking, enum ranking_order order);

/* Return the number of lookups that missed. */
uint64_t ranking_misses(const struct ranking_row *row);
