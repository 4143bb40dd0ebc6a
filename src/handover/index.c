/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handover/index.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

static const char MAGIC[8] = { 's', 'c', 'a', 'c', 'h', 'e', 'd', '\n' };

/* The offsets of the fields that are filled in last, and the start of the bytes that the checksum covers. */
#define AT_CHECKSUM    16
#define AT_SIZE        24
#define AT_CONNECTIONS 40
#define AT_BINDINGS    48

static uint64_t checksum_of(struct slice bytes) {
        static const struct siphash_key key = INDEX_KEY;

        return siphash13(&key, (struct slice){ bytes.data + AT_SIZE, bytes.size - AT_SIZE });
}

static void put(struct index_writer *writer, const void *data, size_t size) {
        if (writer->error < 0)
                return;

        writer->error = wire_buffer_reserve(&writer->buffer, size);
        if (writer->error < 0)
                return;

        if (size > 0)
                memcpy(wire_buffer_tail(&writer->buffer), data, size);
        wire_buffer_produced(&writer->buffer, size);
}

static void put_u32(struct index_writer *writer, uint32_t value) {
        value = htole32(value);
        put(writer, &value, sizeof(value));
}

static void put_u64(struct index_writer *writer, uint64_t value) {
        value = htole64(value);
        put(writer, &value, sizeof(value));
}

static void put_string(struct index_writer *writer, struct slice string) {
        put_u32(writer, (uint32_t) string.size);
        put(writer, string.data, string.size);
}

static void put_u64_at(struct index_writer *writer, size_t at, uint64_t value) {
        value = htole64(value);
        memcpy(wire_buffer_head(&writer->buffer) + at, &value, sizeof(value));
}

/* A counter, and its offset in struct statistics_counters. */
static const struct {
        const char *name;
        size_t offset;
} counters[] = {
#define COUNTER(name, text) { #name, offsetof(struct statistics_counters, name) },
        STATISTICS_COUNTERS(COUNTER)
#undef COUNTER
};

static uint64_t *counter_at(struct statistics_counters *all, size_t i) {
        return (uint64_t *) (void *) ((char *) all + counters[i].offset);
}

static uint64_t counter_value(const struct statistics_counters *all, size_t i) {
        return *(const uint64_t *) (const void *) ((const char *) all + counters[i].offset);
}

void index_begin(struct index_writer *writer, const struct statistics *statistics) {
        *writer = (struct index_writer){ .buffer = WIRE_BUFFER_INIT(INDEX_SIZE_MAX) };

        put(writer, MAGIC, sizeof(MAGIC));
        put_u32(writer, INDEX_VERSION);
        put_u32(writer, 0);
        put_u64(writer, 0); /* checksum */
        put_u64(writer, 0); /* size */
        put_u64(writer, ELEMENTSOF(counters));
        put_u64(writer, 0); /* connections */
        put_u64(writer, 0); /* bindings */
        put_u64(writer, (uint64_t) statistics->interval_start);
        put_u64(writer, statistics->max_destinations);
        put_u64(writer, statistics->max_endpoints);
        put_u64(writer, statistics->max_connections);

        for (size_t i = 0; i < ELEMENTSOF(counters); i++) {
                put_string(writer, slice_of(counters[i].name));
                put_u64(writer, counter_value(&statistics->total, i));
                put_u64(writer, counter_value(&statistics->reported, i));
        }
}

void index_put_connection(struct index_writer *writer, const struct index_connection *connection) {
        const struct connection_details *details = &connection->details;

        put_u64(writer, connection->cookie);
        put_u64(writer, details->id);
        put_u64(writer, details->deadline_us);
        put_u64(writer, details->ttl_us);
        put_u64(writer, details->scope.epoch);
        put_u32(writer, details->scope.uid);
        put_u32(writer, details->saved_by);
        put_string(writer, details->endpoint);
        put_string(writer, details->property);
        put_string(writer, details->farewell);
        writer->n_connections++;
}

void index_put_binding(struct index_writer *writer, const struct binding_details *binding) {
        put_u64(writer, binding->id);
        put_u64(writer, binding->deadline_us);
        put_u64(writer, binding->ttl_us);
        put_u64(writer, binding->scope.epoch);
        put_u32(writer, binding->scope.uid);
        put_string(writer, binding->destination);
        put_string(writer, binding->property);
        put_string(writer, binding->endpoint);
        writer->n_bindings++;
}

int index_end(struct index_writer *writer, struct slice *ret) {
        struct slice bytes;

        if (writer->error < 0)
                return writer->error;

        bytes = (struct slice){ wire_buffer_head(&writer->buffer), wire_buffer_fill(&writer->buffer) };
        put_u64_at(writer, AT_SIZE, bytes.size);
        put_u64_at(writer, AT_CONNECTIONS, writer->n_connections);
        put_u64_at(writer, AT_BINDINGS, writer->n_bindings);
        put_u64_at(writer, AT_CHECKSUM, checksum_of(bytes));

        *ret = bytes;
        return 0;
}

void index_release(struct index_writer *writer) {
        wire_buffer_release(&writer->buffer);
}

/* Take SIZE bytes off the rest. If it has less, return NULL, and set `data` to NULL: all further calls return NULL. */
static const char *take(struct slice *rest, size_t size) {
        const char *data = rest->data;

        if (!data || size > rest->size) {
                *rest = (struct slice){};
                return NULL;
        }

        rest->data += size;
        rest->size -= size;
        return data;
}

static uint32_t take_u32(struct slice *rest) {
        const char *data = take(rest, sizeof(uint32_t));
        uint32_t value = 0;

        if (data)
                memcpy(&value, data, sizeof(value));
        return le32toh(value);
}

static uint64_t take_u64(struct slice *rest) {
        const char *data = take(rest, sizeof(uint64_t));
        uint64_t value = 0;

        if (data)
                memcpy(&value, data, sizeof(value));
        return le64toh(value);
}

static struct slice take_string(struct slice *rest) {
        size_t size = take_u32(rest);
        const char *data = take(rest, size);

        if (data && (size > INDEX_STRING_MAX || memchr(data, 0, size))) {
                *rest = (struct slice){};
                data = NULL;
        }
        return (struct slice){ data, data ? size : 0 };
}

bool index_next_connection(const struct index *index, struct slice *rest, struct index_connection *ret) {
        *ret = (struct index_connection){ .details.fd = -1 };
        ret->cookie = take_u64(rest);
        ret->details.id = take_u64(rest);
        ret->details.deadline_us = take_u64(rest);
        ret->details.ttl_us = take_u64(rest);
        ret->details.scope.epoch = index->has_epochs ? take_u64(rest) : 0;
        ret->details.scope.uid = take_u32(rest);
        ret->details.saved_by = take_u32(rest);
        ret->details.endpoint = take_string(rest);
        ret->details.property = take_string(rest);
        ret->details.farewell = take_string(rest);
        return rest->data != NULL;
}

bool index_next_binding(const struct index *index, struct slice *rest, struct binding_details *ret) {
        *ret = (struct binding_details){};
        ret->id = take_u64(rest);
        ret->deadline_us = take_u64(rest);
        ret->ttl_us = take_u64(rest);
        ret->scope.epoch = index->has_epochs ? take_u64(rest) : 0;
        ret->scope.uid = take_u32(rest);
        /* If users share, a binding belongs to nobody until an agent renews it. */
        ret->saved_by = ret->scope.uid;
        ret->destination = take_string(rest);
        ret->property = take_string(rest);
        ret->endpoint = take_string(rest);
        return rest->data != NULL;
}

static void take_counter(struct slice *rest, struct statistics *statistics) {
        struct slice name = take_string(rest);
        uint64_t total = take_u64(rest), reported = take_u64(rest);

        for (size_t i = 0; name.data && i < ELEMENTSOF(counters); i++)
                if (slice_equal(name, slice_of(counters[i].name))) {
                        *counter_at(&statistics->total, i) = total;
                        *counter_at(&statistics->reported, i) = MIN(reported, total);
                }
}

static bool is_id(uint64_t id) {
        return id > 0 && id <= INDEX_ID_MAX;
}

/* Check all connections, or bindings, and leave the rest after them. */
static int check_connections(const struct index *index, struct slice *rest) {
        uint64_t last_id = 0;

        for (uint64_t i = 0; i < index->n_connections; i++) {
                struct index_connection connection;

                if (!index_next_connection(index, rest, &connection) || !is_id(connection.details.id) ||
                        connection.details.id <= last_id)
                        return -EBADMSG;
                last_id = connection.details.id;
        }
        return 0;
}

static int check_bindings(const struct index *index, struct slice *rest) {
        uint64_t last_us = 0;

        for (uint64_t i = 0; i < index->n_bindings; i++) {
                struct binding_details binding;

                if (!index_next_binding(index, rest, &binding) || !is_id(binding.id) ||
                        binding.deadline_us < last_us)
                        return -EBADMSG;
                last_us = binding.deadline_us;
        }
        return 0;
}

int index_open(struct slice bytes, struct index *ret) {
        struct slice rest = bytes;
        uint64_t n_counters, checksum;
        struct index index = {};
        const char *data;
        uint32_t version;
        int r;

        data = take(&rest, sizeof(MAGIC));
        if (!data || memcmp(data, MAGIC, sizeof(MAGIC)) != 0)
                return -EBADMSG;
        version = take_u32(&rest);
        if (version != INDEX_VERSION && version != INDEX_VERSION_NO_EPOCH)
                return rest.data ? -EPROTONOSUPPORT : -EBADMSG;
        index.has_epochs = version != INDEX_VERSION_NO_EPOCH;
        if (take_u32(&rest) != 0)
                return -EBADMSG;

        checksum = take_u64(&rest);
        if (!rest.data || take_u64(&rest) != bytes.size || checksum != checksum_of(bytes))
                return -EBADMSG;

        n_counters = take_u64(&rest);
        index.n_connections = take_u64(&rest);
        index.n_bindings = take_u64(&rest);
        index.statistics.interval_start = (time_t) take_u64(&rest);
        index.statistics.max_destinations = take_u64(&rest);
        index.statistics.max_endpoints = take_u64(&rest);
        index.statistics.max_connections = take_u64(&rest);

        for (uint64_t i = 0; rest.data && i < n_counters; i++)
                take_counter(&rest, &index.statistics);

        index.connections = rest;
        r = check_connections(&index, &rest);
        if (r < 0)
                return r;
        index.connections.size -= rest.size;

        index.bindings = rest;
        r = check_bindings(&index, &rest);
        if (r < 0)
                return r;

        if (!rest.data || rest.size > 0)
                return -EBADMSG;

        *ret = index;
        return 0;
}
