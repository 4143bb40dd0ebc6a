/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The index of a hand-over. Any bytes are refused or read; what is read can be put into a cache, and written again it is
 * read as the same. The first byte says whether the checksum and the size are put right before, without which next
 * to nothing would get past them. */

#include <string.h>

#include "base/cleanup.h"
#include "cache/cache.h"
#include "fuzz.h"
#include "handover/index.h"

#define AT_CHECKSUM 16
#define AT_SIZE     24

static void put_right(char *data, size_t size) {
        static const struct siphash_key key = INDEX_KEY;
        uint64_t number;

        if (size < AT_SIZE + sizeof(number))
                return;

        number = htole64(size);
        memcpy(data + AT_SIZE, &number, sizeof(number));
        number = htole64(siphash13(&key, (struct slice){ data + AT_SIZE, size - AT_SIZE }));
        memcpy(data + AT_CHECKSUM, &number, sizeof(number));
}

static void check_string(struct slice string) {
        CHECK(string.size <= INDEX_STRING_MAX);
        CHECK(string.size == 0 || !memchr(string.data, 0, string.size));
}

/* Write the index again, and read that: the records are the same, byte by byte, unless it was of the version before. */
static void check_written(const struct index *index) {
        struct slice connections = index->connections, bindings = index->bindings, bytes;
        struct index_writer writer;
        struct index_connection connection;
        struct binding_details binding;
        struct index again;

        index_begin(&writer, &index->statistics);
        while (index_next_connection(index, &connections, &connection)) {
                check_string(connection.details.endpoint);
                check_string(connection.details.property);
                check_string(connection.details.farewell);
                index_put_connection(&writer, &connection);
        }
        while (index_next_binding(index, &bindings, &binding)) {
                check_string(binding.destination);
                check_string(binding.property);
                check_string(binding.endpoint);
                index_put_binding(&writer, &binding);
        }
        CHECK(writer.n_connections == index->n_connections && writer.n_bindings == index->n_bindings);
        CHECK(index_end(&writer, &bytes) == 0);
        CHECK(index_open(bytes, &again) == 0);
        if (index->has_epochs) {
                CHECK(slice_equal(again.connections, index->connections));
                CHECK(slice_equal(again.bindings, index->bindings));
        }
        CHECK(memcmp(&again.statistics, &index->statistics, sizeof(again.statistics)) == 0);
        index_release(&writer);
}

/* As handover_take() does it, with no descriptors. */
static void check_cached(const struct index *index) {
        static const struct siphash_key key = { 1, 2 };
        struct slice connections = index->connections, bindings = index->bindings;
        struct index_connection record;
        struct binding_details binding;
        struct connection *connection;
        struct cache *cache;

        CHECK(cache_new(&cache, &key, &(struct cache_limits){ .connections = 100, .bytes = 1 << 20 }) == 0);
        while (index_next_connection(index, &connections, &record))
                CHECK(cache_save_endpoint(cache, &record.details, &connection) == 0);
        while (index_next_binding(index, &bindings, &binding))
                CHECK(cache_save_destination(cache, &binding) == 0);
        CHECK(cache_counts(cache)->connections <= 100);

        while (cache_let_one_go(cache, DEPARTURE_FLUSHED))
                ;
        while ((connection = cache_next_departed(cache)))
                connection_free(connection);
        cache_free(cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct index index;
        char *copy;

        if (size == 0)
                return 0;

        copy = malloc(size);
        CHECK(copy);
        memcpy(copy, data + 1, size - 1);
        if (data[0] & 1)
                put_right(copy, size - 1);

        if (index_open((struct slice){ copy, size - 1 }, &index) == 0) {
                check_written(&index);
                check_cached(&index);
        }

        free(copy);
        return 0;
}
