/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/ranking.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const ranking_reasons[RANKING_REASONS] = { "unknown", "expired", "dead", "evicted", "flushed",
        "replaced", "outdated", "busy", "used" };

static int add_row(struct ranking *ranking, struct slice label) {
        struct ranking_row *rows, *row;

        rows = reallocarray(ranking->rows, ranking->n_rows + 1, sizeof(*rows));
        if (!rows)
                return -ENOMEM;
        ranking->rows = rows;

        row = &rows[ranking->n_rows];
        *row = (struct ranking_row){ .size = label.size, .whole_size = label.size };
        row->label = strdup(label.data);
        if (!row->label)
                return -ENOMEM;
        ranking->n_rows++;
        return 0;
}

static void read_number(struct ranking_row *row, struct slice name, uint64_t value) {
        static const char misses[] = "misses_";
        const struct {
                const char *name;
                uint64_t *number;
        } numbers[] = {
                { "label_size", &row->whole_size },
                { "age_us", &row->age_us },
                { "error", &row->error },
                { "parked", &row->parked },
                { "hits", &row->hits },
                { "dead", &row->dead },
                { "user", &row->user },
        };

        for (size_t i = 0; i < ELEMENTSOF(numbers); i++)
                if (slice_equal(name, slice_of(numbers[i].name)))
                        *numbers[i].number = value;
        row->has_user = row->has_user || slice_equal(name, SLICE("user"));

        /* The misses of a reason that this scachectl does not know are unknown to it. */
        if (strncmp(name.data, misses, sizeof(misses) - 1) == 0) {
                size_t i = RANKING_REASONS - 1;

                while (i > 0 && strcmp(name.data + sizeof(misses) - 1, ranking_reasons[i]) != 0)
                        i--;
                row->misses[i] += value;
        }
}

/* Read a page; each row begins with its label. NEXT becomes the first row of the next page, or stays. */
static int read_page(struct ranking *ranking, struct client *client, uint64_t *next) {
        struct slice first = ranking->has_endpoints ? SLICE("endpoint") : SLICE("destination");
        struct client_attribute attribute;
        uint64_t value;
        int r;

        while (client_next(client, &attribute)) {
                if (slice_equal(attribute.name, first)) {
                        r = add_row(ranking, attribute.value);
                        if (r < 0)
                                return r;
                } else if (wire_number(attribute.value, &value) < 0)
                        return -EPROTO;
                else if (slice_equal(attribute.name, SLICE("rows_max")))
                        ranking->rows_max = value;
                else if (slice_equal(attribute.name, SLICE("cursor")))
                        *next = value;
                else if (ranking->n_rows > 0)
                        read_number(&ranking->rows[ranking->n_rows - 1], attribute.name, value);
        }
        return 0;
}

int ranking_fetch(
        struct ranking *ranking, struct client *client, bool endpoints, const struct options *options) {
        uint64_t at, next = 0;
        char cursor[24], user[24];
        int r;

        *ranking = (struct ranking){ .has_endpoints = endpoints };
        (void) snprintf(user, sizeof(user), "%u", options->user);
        do {
                const struct client_attribute attributes[] = {
                        { SLICE("request"), SLICE("top") },
                        { SLICE("kind"), endpoints ? SLICE("endpoints") : SLICE("destinations") },
                        { SLICE("cursor"),
                                { cursor, (size_t) snprintf(cursor, sizeof(cursor), "%" PRIu64, next) } },
                        { SLICE("user"), slice_of(user) },
                };

                at = next;
                r = client_ask(client, attributes, options->has_user ? 4 : 3);
                if (r >= 0)
                        r = read_page(ranking, client, &next);
                if (r < 0) {
                        ranking_release(ranking);
                        return r;
                }
        } while (next > at);

        for (size_t i = 0; i < ranking->n_rows; i++)
                ranking->rows[i].lookups = ranking->rows[i].hits + ranking_misses(&ranking->rows[i]);
        return 0;
}

void ranking_release(struct ranking *ranking) {
        for (size_t i = 0; i < ranking->n_rows; i++)
                free(ranking->rows[i].label);
        free(ranking->rows);
        *ranking = (struct ranking){};
}

uint64_t ranking_misses(const struct ranking_row *row) {
        uint64_t sum = 0;

        for (size_t i = 0; i < RANKING_REASONS; i++)
                sum += row->misses[i];
        return sum;
}

static bool is_same(const struct ranking_row *a, const struct ranking_row *b) {
        return a->size == b->size && a->whole_size == b->whole_size && a->user == b->user &&
                memcmp(a->label, b->label, a->size) == 0;
}

static void subtract(struct ranking_row *now, const struct ranking_row *before) {
        now->lookups -= before->lookups;
        now->hits -= before->hits;
        for (size_t i = 0; i < RANKING_REASONS; i++)
                now->misses[i] -= before->misses[i];
        now->dead -= before->dead;
        now->error = 0;
}

int ranking_since(struct ranking *ret, const struct ranking *now, const struct ranking *before) {
        *ret = *now;
        ret->rows = calloc(now->n_rows + 1, sizeof(*ret->rows));
        if (!ret->rows)
                return -ENOMEM;

        for (size_t i = 0; i < now->n_rows; i++) {
                struct ranking_row *row = &ret->rows[i];

                *row = now->rows[i];
                for (size_t k = 0; before && k < before->n_rows; k++)
                        /* A row that is younger than it was has been another label's in between. */
                        if (is_same(row, &before->rows[k]) && row->age_us >= before->rows[k].age_us) {
                                subtract(row, &before->rows[k]);
                                break;
                        }
        }
        return 0;
}

static int compare(const struct ranking_row *a, const struct ranking_row *b, uint64_t x, uint64_t y) {
        if (x == y)
                x = a->lookups, y = b->lookups;
        return x != y ? (x > y ? -1 : 1) : strcmp(a->label, b->label);
}

static int compare_lookups(const void *a, const void *b) {
        return compare(a, b, 0, 0);
}

static int compare_misses(const void *a, const void *b) {
        return compare(a, b, ranking_misses(a), ranking_misses(b));
}

static int compare_parked(const void *a, const void *b) {
        return compare(
                a, b, ((const struct ranking_row *) a)->parked, ((const struct ranking_row *) b)->parked);
}

void ranking_sort(struct ranking *ranking, enum ranking_order order) {
        static int (*const compares[_RANKING_MAX])(const void *a, const void *b) = {
                [RANKING_BY_LOOKUPS] = compare_lookups,
                [RANKING_BY_MISSES] = compare_misses,
                [RANKING_BY_PARKED] = compare_parked,
        };

        if (ranking->n_rows > 0)
                qsort(ranking->rows, ranking->n_rows, sizeof(*ranking->rows), compares[order]);
}
