/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* model: src/cache as a program: one operation a line on standard input, what came of it a line on standard output */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cache/cache.h"
#include "cache/entries.h"

/* Words are separated by one space; labels and properties begin with `=`, so that they may be empty. */
#define WORDS_MAX 12
#define IDS_MAX   (1u << 20)

struct driver {
        struct cache *cache;
        struct cache_limits limits;
        uint64_t now_us;
        struct cache_taking *takings; /* by id */
        struct connection **by_id;    /* those that are in the cache */
        struct cache_cursor cursor;
        char *words[WORDS_MAX];
};

static void __attribute__((noreturn)) die(const char *why) {
        (void) fprintf(stderr, "driver: %s\n", why);
        exit(1);
}

static uint64_t number(const struct driver *driver, size_t i) {
        if (!driver->words[i])
                die("a number is missing");
        return strtoull(driver->words[i], NULL, 10);
}

static struct slice text(const struct driver *driver, size_t i) {
        if (!driver->words[i] || driver->words[i][0] != '=')
                die("a string is missing");
        return slice_of(driver->words[i] + 1);
}

static struct connection *by_id(const struct driver *driver, size_t i) {
        uint64_t id = number(driver, i);

        if (id >= IDS_MAX || !driver->by_id[id])
                die("no such connection");
        return driver->by_id[id];
}

static void show_text(struct slice bytes) {
        (void) printf(" =%.*s", (int) bytes.size, bytes.data);
}

static void show_found(struct driver *driver, enum label_kind kind, const struct connection *connection,
        struct slice property) {
        struct cache_miss miss;

        if (!connection) {
                cache_explain_miss(driver->cache, kind, (struct scope){ .uid = (uid_t) number(driver, 1) },
                        text(driver, 2), driver->now_us, false, &miss);
                (void) printf("none %s %" PRIu64, reason_name(miss.reason), miss.ago_us);
                return;
        }

        driver->takings[connection->id] = cache_taking(driver->cache, connection);
        (void) printf("%" PRIu64, connection->id);
        show_text(connection_property(connection));
        show_text(connection_farewell(connection));
        show_text(property);
}

static void show_connection(_unused_ void *userdata, struct connection *connection) {
        (void) printf(" %" PRIu64, connection->id);
}

static void show_binding(_unused_ void *userdata, struct binding *binding) {
        (void) printf(" %" PRIu64, binding->id);
}

/* What the operation did beside its result: who departed, and what is left. */
static void show_rest(struct driver *driver) {
        const struct cache_counts *counts = cache_counts(driver->cache);
        struct connection *connection;

        (void) printf("|");
        while ((connection = cache_next_departed(driver->cache))) {
                (void) printf(" %" PRIu64 ":%u", connection->id, (unsigned) connection->departure);
                driver->by_id[connection->id] = NULL;
                connection_free(connection);
        }
        (void) printf("|%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
                      " %" PRIu64 " %" PRIu64 " %u\n",
                counts->connections, counts->lent, counts->bindings, counts->endpoints, counts->destinations,
                counts->bytes, counts->bindings_let_go, cache_next_deadline(driver->cache),
                counts->connections_let_go, (unsigned) cache_gave_way(driver->cache));
}

static void save(struct driver *driver) {
        const struct connection_details details = {
                .id = number(driver, 1),
                .scope.uid = (uid_t) number(driver, 2),
                .endpoint = text(driver, 3),
                .property = text(driver, 4),
                .farewell = text(driver, 5),
                .ttl_us = number(driver, 6),
                .deadline_us = number(driver, 7),
                .saved_by = (uid_t) number(driver, 8),
                .cookie = number(driver, 9),
                .fd = -1,
        };
        struct connection *connection;
        int r;

        r = cache_save_endpoint(driver->cache, &details, &connection);
        if (r == -EEXIST) {
                (void) printf("refused");
                return;
        }
        if (r < 0)
                die("out of memory");
        if (connection->id >= IDS_MAX)
                die("too many connections");
        driver->by_id[connection->id] = connection;
        (void) printf("%" PRIu64, connection->id);
}

static void bind_destination(struct driver *driver) {
        const struct binding_details details = {
                .id = number(driver, 1),
                .scope.uid = (uid_t) number(driver, 2),
                .destination = text(driver, 3),
                .property = text(driver, 4),
                .endpoint = text(driver, 5),
                .ttl_us = number(driver, 6),
                .deadline_us = number(driver, 7),
                .saved_by = (uid_t) number(driver, 8),
        };

        if (cache_save_destination(driver->cache, &details) < 0)
                die("out of memory");
        (void) printf("ok");
}

static void leave(struct driver *driver, struct connection *connection) {
        driver->by_id[connection->id] = NULL;
        connection_free(connection);
        (void) printf("ok");
}

/* What the busiest labels come to: lookups that hit, and that missed for each reason. */
static void show_sums(const struct driver *driver) {
        for (unsigned kind = 0; kind < _LABEL_KIND_MAX; kind++) {
                const struct busiest *busiest = cache_busiest(driver->cache, kind);
                uint64_t hits = 0, misses[_REASON_MAX] = {};

                for (size_t i = 0; i < busiest->n_rows; i++) {
                        hits += busiest->rows[i]->hits;
                        for (unsigned reason = 0; reason < _REASON_MAX; reason++)
                                misses[reason] += busiest->rows[i]->misses[reason];
                }
                (void) printf(" %" PRIu64, hits);
                for (unsigned reason = 0; reason < _REASON_MAX; reason++)
                        (void) printf(" %" PRIu64, misses[reason]);
        }
}

/* The parked connections of each label among the busiest, by label. */
static void show_parked(const struct driver *driver) {
        for (unsigned kind = 0; kind < _LABEL_KIND_MAX; kind++) {
                const struct busiest *busiest = cache_busiest(driver->cache, kind);

                for (size_t i = 0; i < busiest->n_rows; i++) {
                        const struct busiest_row *row = busiest->rows[i];

                        (void) printf(" %u", kind);
                        (void) printf(" %u", row->scope.uid);
                        show_text((struct slice){ row->label, MIN(row->label_size, sizeof(row->label)) });
                        (void) printf(" %" PRIu64, cache_count_parked(driver->cache, kind, row));
                }
        }
}

static void run(struct driver *driver) {
        const char *name = driver->words[0];
        struct connection *connection;
        struct slice property = {};

        if (strcmp(name, "save") == 0) {
                save(driver);
        } else if (strcmp(name, "bind") == 0) {
                bind_destination(driver);
        } else if (strcmp(name, "find_endpoint") == 0) {
                connection = cache_find_endpoint(driver->cache,
                        (struct scope){ .uid = (uid_t) number(driver, 1) }, text(driver, 2),
                        number(driver, 3));
                show_found(driver, LABEL_ENDPOINT, connection, property);
        } else if (strcmp(name, "find_destination") == 0) {
                connection = cache_find_destination(driver->cache,
                        (struct scope){ .uid = (uid_t) number(driver, 1) }, text(driver, 2),
                        number(driver, 3), &property);
                show_found(driver, LABEL_DESTINATION, connection, property);
        } else if (strcmp(name, "give") == 0) {
                connection = by_id(driver, 1);
                cache_give(driver->cache, connection);
                leave(driver, connection);
        } else if (strcmp(name, "take_back") == 0) {
                cache_take_back(driver->cache, by_id(driver, 1), number(driver, 2));
                (void) printf("ok");
        } else if (strcmp(name, "die") == 0) {
                connection = by_id(driver, 1);
                cache_bury(driver->cache, connection);
                leave(driver, connection);
        } else if (strcmp(name, "used") == 0) {
                cache_note_used(driver->cache, &driver->takings[number(driver, 1)], driver->now_us);
                (void) printf("ok");
        } else if (strcmp(name, "sums") == 0) {
                show_sums(driver);
        } else if (strcmp(name, "parked") == 0) {
                show_parked(driver);
        } else if (strcmp(name, "expire") == 0) {
                (void) printf(
                        "%i", cache_expire(driver->cache, number(driver, 1), (unsigned) number(driver, 2)));
        } else if (strcmp(name, "let_one_go") == 0) {
                (void) printf("%i", cache_let_one_go(driver->cache, DEPARTURE_FLUSHED));
        } else if (strcmp(name, "limits") == 0) {
                driver->limits.connections = number(driver, 1);
                driver->limits.bytes = number(driver, 2);
                cache_set_limits(driver->cache, &driver->limits);
                (void) printf("ok");
        } else if (strcmp(name, "history") == 0) {
                driver->limits.history = number(driver, 1);
                cache_set_limits(driver->cache, &driver->limits);
                (void) printf("ok");
        } else if (strcmp(name, "walk_begin") == 0) {
                driver->cursor = (struct cache_cursor){};
                (void) printf("ok");
        } else if (strcmp(name, "walk_connections") == 0) {
                (void) printf(" %i",
                        cache_walk_connections(
                                driver->cache, &driver->cursor, number(driver, 1), show_connection, NULL));
        } else if (strcmp(name, "walk_bindings") == 0) {
                (void) printf(" %i",
                        cache_walk_bindings(
                                driver->cache, &driver->cursor, number(driver, 1), show_binding, NULL));
        } else if (strcmp(name, "cost") == 0) {
                uint64_t a = number(driver, 1), b = number(driver, 2);

                (void) printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, label_bytes(a), label_bytes(a),
                        binding_bytes(a), connection_bytes(a, b));
        } else {
                die("unknown operation");
        }
}

/* A line begins with the time. */
static void split(struct driver *driver, char *line) {
        size_t n = 0;

        line[strcspn(line, "\n")] = 0;
        driver->now_us = strtoull(strsep(&line, " "), NULL, 10);
        cache_tell_time(driver->cache, driver->now_us);
        while (n < WORDS_MAX - 1 && (driver->words[n] = strsep(&line, " ")))
                n++;
        driver->words[n] = NULL;
        if (!driver->words[0])
                die("an empty line");
}

int main(void) {
        static const struct siphash_key key = { 1, 2 };
        static const struct cache_limits limits = {};
        struct driver driver = {};
        char *line = NULL;
        size_t size = 0;

        driver.by_id = calloc(IDS_MAX, sizeof(struct connection *));
        driver.takings = calloc(IDS_MAX, sizeof(*driver.takings));
        if (!driver.by_id || !driver.takings || cache_new(&driver.cache, &key, &limits) < 0)
                die("out of memory");

        while (getline(&line, &size, stdin) > 0) {
                split(&driver, line);
                run(&driver);
                show_rest(&driver);
                (void) fflush(stdout);
        }
        free(line);

        /* Nothing may be left over. */
        for (uint64_t id = 0; id < IDS_MAX; id++) {
                if (!driver.by_id[id])
                        continue;
                if (driver.by_id[id]->state == CONNECTION_LENT)
                        cache_give(driver.cache, driver.by_id[id]);
                else
                        cache_remove(driver.cache, driver.by_id[id]);
                connection_free(driver.by_id[id]);
        }
        cache_free(driver.cache);
        free(driver.by_id);
        free(driver.takings);
        return 0;
}
