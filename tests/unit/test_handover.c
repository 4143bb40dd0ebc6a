/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The index of what goes from one process to the next: what was written is read, and nothing else is. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "handover/index.h"
#include "handover/parcels.h"

#define N_CONNECTIONS 5
#define N_BINDINGS    4

static struct index_connection connection_number(uint64_t i) {
        static const char *const properties[] = { "", "property", "\x01\xff\n", "p", "" };

        return (struct index_connection){
                .cookie = UINT64_C(0xfedcba9876543210) - i,
                .details = {
                        .id = 10 * (i + 1),
                        .scope = { i % 2 ? (uid_t) -1 : 1000, UINT64_MAX - i },
                        .saved_by = (uid_t) (1000 + i),
                        .endpoint = slice_of(i % 2 ? "smtp\n[192.0.2.1]:25" : ""),
                        .property = slice_of(properties[i]),
                        .farewell = slice_of(i < 3 ? "QUIT\r\n" : ""),
                        .ttl_us = 2000000 + i,
                        .deadline_us = UINT64_C(1) << (40 + i),
                        .fd = -1,
                },
        };
}

static struct binding_details binding_number(uint64_t i) {
        return (struct binding_details){
                .id = 7 + N_BINDINGS - i,
                .scope = { (uid_t) i, 5 * i },
                .destination = SLICE("example.org"),
                .property = slice_of(i ? "of the binding" : ""),
                .endpoint = SLICE("192.0.2.1"),
                .ttl_us = 1,
                .deadline_us = 1000 + i / 2,
        };
}

static const struct statistics statistics = {
        .total = { .destination_hits = 1, .endpoint_misses = UINT64_MAX, .agents_dropped = 99 },
        .reported = { .agents_dropped = 98 },
        .interval_start = 1700000000,
        .max_destinations = 3,
        .max_endpoints = 4,
        .max_connections = 5,
};

static struct slice write_index(struct index_writer *writer) {
        struct slice bytes;

        index_begin(writer, &statistics);
        for (uint64_t i = 0; i < N_CONNECTIONS; i++) {
                struct index_connection connection = connection_number(i);

                index_put_connection(writer, &connection);
        }
        for (uint64_t i = 0; i < N_BINDINGS; i++) {
                struct binding_details binding = binding_number(i);

                index_put_binding(writer, &binding);
        }
        assert_int_equal(index_end(writer, &bytes), 0);
        return bytes;
}

static void assert_slice_equal(struct slice a, struct slice b) {
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.data, b.data, a.size);
}

static void test_round_trip(_unused_ void **state) {
        _cleanup_(index_release) struct index_writer writer = {};
        struct slice bytes = write_index(&writer), rest;
        struct index_connection connection;
        struct binding_details binding;
        struct index index;
        size_t n = 0;

        assert_int_equal(index_open(bytes, &index), 0);
        assert_int_equal(index.n_connections, N_CONNECTIONS);
        assert_int_equal(index.n_bindings, N_BINDINGS);
        assert_memory_equal(&index.statistics, &statistics, sizeof(statistics));

        for (rest = index.connections; index_next_connection(&index, &rest, &connection); n++) {
                struct index_connection expected = connection_number(n);

                assert_int_equal(connection.cookie, expected.cookie);
                assert_int_equal(connection.details.id, expected.details.id);
                assert_true(scope_equal(connection.details.scope, expected.details.scope));
                assert_int_equal(connection.details.saved_by, expected.details.saved_by);
                assert_int_equal(connection.details.ttl_us, expected.details.ttl_us);
                assert_int_equal(connection.details.deadline_us, expected.details.deadline_us);
                assert_int_equal(connection.details.fd, -1);
                assert_slice_equal(connection.details.endpoint, expected.details.endpoint);
                assert_slice_equal(connection.details.property, expected.details.property);
                assert_slice_equal(connection.details.farewell, expected.details.farewell);
        }
        assert_int_equal(n, N_CONNECTIONS);

        n = 0;
        for (rest = index.bindings; index_next_binding(&index, &rest, &binding); n++) {
                struct binding_details expected = binding_number(n);

                assert_int_equal(binding.id, expected.id);
                assert_true(scope_equal(binding.scope, expected.scope));
                assert_int_equal(binding.ttl_us, expected.ttl_us);
                assert_int_equal(binding.deadline_us, expected.deadline_us);
                assert_slice_equal(binding.destination, expected.destination);
                assert_slice_equal(binding.property, expected.property);
                assert_slice_equal(binding.endpoint, expected.endpoint);
        }
        assert_int_equal(n, N_BINDINGS);
}

static void test_nothing_in_it(_unused_ void **state) {
        _cleanup_(index_release) struct index_writer writer = {};
        struct index_connection connection;
        struct binding_details binding;
        struct index index;
        struct slice bytes;

        index_begin(&writer, &statistics);
        assert_int_equal(index_end(&writer, &bytes), 0);
        assert_int_equal(index_open(bytes, &index), 0);
        assert_false(index_next_connection(&index, &index.connections, &connection));
        assert_false(index_next_binding(&index, &index.bindings, &binding));
}

/* In a block of its own size, so that a sanitizer sees a byte read past its end. */
static int open_copy(struct slice bytes) {
        _cleanup_(freep) char *copy = malloc(MAX(bytes.size, (size_t) 1));
        struct index index;

        assert_non_null(copy);
        memcpy(copy, bytes.data, bytes.size);
        return index_open((struct slice){ copy, bytes.size }, &index);
}

static void test_truncated_at_every_byte(_unused_ void **state) {
        _cleanup_(index_release) struct index_writer writer = {};
        struct slice bytes = write_index(&writer);

        for (size_t size = 0; size < bytes.size; size++)
                assert_int_equal(open_copy((struct slice){ bytes.data, size }), -EBADMSG);
        assert_int_equal(open_copy(bytes), 0);
}

static void test_every_bit_flipped(_unused_ void **state) {
        _cleanup_(index_release) struct index_writer writer = {};
        struct slice bytes = write_index(&writer);
        char *data = wire_buffer_head(&writer.buffer);

        for (size_t bit = 0; bit < bytes.size * 8; bit++) {
                bool is_version = bit / 8 >= 8 && bit / 8 < 12;

                data[bit / 8] = (char) (data[bit / 8] ^ 1 << bit % 8);
                assert_int_equal(open_copy(bytes), is_version ? -EPROTONOSUPPORT : -EBADMSG);
                data[bit / 8] = (char) (data[bit / 8] ^ 1 << bit % 8);
        }
        assert_int_equal(open_copy(bytes), 0);
}

/* Write over part of an index and make its checksum right again. */
static int open_altered(size_t at, const void *data, size_t size) {
        static const struct siphash_key key = INDEX_KEY;
        _cleanup_(index_release) struct index_writer writer = {};
        struct slice bytes = write_index(&writer);
        char *head = wire_buffer_head(&writer.buffer);
        uint64_t checksum;

        memcpy(head + at, data, size);
        checksum = htole64(siphash13(&key, (struct slice){ head + 24, bytes.size - 24 }));
        memcpy(head + 16, &checksum, sizeof(checksum));
        return open_copy(bytes);
}

/* Where the first occurrence of a string is in the index. */
static size_t find(const char *string) {
        _cleanup_(index_release) struct index_writer writer = {};
        struct slice bytes = write_index(&writer);
        const char *at = memmem(bytes.data, bytes.size, string, strlen(string));

        assert_non_null(at);
        return (size_t) (at - bytes.data);
}

static void test_lies_with_a_good_checksum(_unused_ void **state) {
        const size_t counters = 32, connections = 40, bindings = 48, endpoint = find("smtp\n");
        const size_t second = endpoint - 4 - 48, id = second + 8;
        const uint64_t huge = UINT64_MAX, zero = 0, one = htole64(1), six = htole64(6);
        const uint32_t longer = htole32(1000000), longest = UINT32_MAX;

        assert_int_equal(open_altered(0, "s", 1), 0);
        assert_int_equal(open_altered(counters, &huge, 8), -EBADMSG);
        assert_int_equal(open_altered(counters, &zero, 8), -EBADMSG);
        assert_int_equal(open_altered(connections, &huge, 8), -EBADMSG);
        assert_int_equal(open_altered(connections, &six, 8), -EBADMSG);
        assert_int_equal(open_altered(bindings, &huge, 8), -EBADMSG);
        assert_int_equal(open_altered(bindings, &one, 8), -EBADMSG);
        assert_int_equal(open_altered(endpoint, "\0", 1), -EBADMSG);
        assert_int_equal(open_altered(endpoint - 4, &longer, 4), -EBADMSG);
        assert_int_equal(open_altered(endpoint - 4, &longest, 4), -EBADMSG);

        /* Ids: none is 0, too large, or not above the one before. */
        assert_int_equal(open_altered(id, &zero, 8), -EBADMSG);
        assert_int_equal(open_altered(id, &huge, 8), -EBADMSG);
        assert_int_equal(open_altered(id, &one, 8), -EBADMSG);

        /* Bindings: the last one's deadline may not be before that of the others. */
        assert_int_equal(open_altered(find("of the binding") - 4 - 11 - 4 - 28, &huge, 8), -EBADMSG);
}

/* As the version before wrote it: no epochs, and everything else as now. */
static void test_version_without_epochs(_unused_ void **state) {
        static const struct siphash_key key = INDEX_KEY;
        _cleanup_(index_release) struct index_writer writer = {};
        const struct index_connection saved = connection_number(1);
        const uint32_t version = htole32(INDEX_VERSION_NO_EPOCH);
        struct index_connection connection;
        uint64_t size, checksum;
        struct slice bytes, rest;
        struct index index;
        char *head, *epoch;

        index_begin(&writer, &statistics);
        index_put_connection(&writer, &saved);
        assert_int_equal(index_end(&writer, &bytes), 0);
        head = wire_buffer_head(&writer.buffer);

        epoch = memmem(head, bytes.size, "smtp\n", 5);
        assert_non_null(epoch);
        epoch -= 4 + 8 + 8;
        bytes.size -= 8;
        memmove(epoch, epoch + 8, (size_t) (head + bytes.size - epoch));
        memcpy(head + 8, &version, sizeof(version));
        size = htole64(bytes.size);
        memcpy(head + 24, &size, sizeof(size));
        checksum = htole64(siphash13(&key, (struct slice){ head + 24, bytes.size - 24 }));
        memcpy(head + 16, &checksum, sizeof(checksum));

        assert_int_equal(index_open(bytes, &index), 0);
        assert_false(index.has_epochs);
        rest = index.connections;
        assert_true(index_next_connection(&index, &rest, &connection));
        assert_int_equal(connection.details.scope.epoch, 0);
        assert_int_equal(connection.details.scope.uid, saved.details.scope.uid);
        assert_slice_equal(connection.details.farewell, saved.details.farewell);
}

static void test_unknown_counters_are_passed_over(_unused_ void **state) {
        struct index index;
        _cleanup_(index_release) struct index_writer writer = {};
        struct slice bytes = write_index(&writer);
        char *name = memmem(bytes.data, bytes.size, "destination_hits", 16);
        static const struct siphash_key key = INDEX_KEY;
        uint64_t checksum;

        assert_non_null(name);
        memcpy(name, "Destination_hits", 16);
        checksum = htole64(siphash13(&key, (struct slice){ bytes.data + 24, bytes.size - 24 }));
        memcpy(wire_buffer_head(&writer.buffer) + 16, &checksum, sizeof(checksum));
        assert_int_equal(index_open(bytes, &index), 0);
        assert_int_equal(index.statistics.total.destination_hits, 0);
        assert_int_equal(index.statistics.total.agents_dropped, 99);
}

/* Parcels. */

#define N_PACKED 1000

static void count(void *userdata, int fd) {
        size_t *n = userdata;
        int type;
        socklen_t size = sizeof(type);

        /* In their order: every third is a datagram socket. */
        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size), 0);
        assert_int_equal(type, *n % 3 ? SOCK_STREAM : SOCK_DGRAM);
        assert_int_equal(close(fd), 0);
        (*n)++;
}

static void after(_unused_ void *userdata) {
}

static size_t unpack(const struct parcel parcels[], size_t n_parcels, size_t *n) {
        int fds[200];

        for (size_t i = 0; i < n_parcels; i++)
                fds[i] = parcels[i].fd;
        return parcels_unpack(fds, n_parcels, count, after, n);
}

static void close_parcels(const struct parcel parcels[], size_t n_parcels) {
        for (size_t i = 0; i < n_parcels; i++) {
                assert_true(parcel_is_held(&parcels[i]));
                assert_int_equal(close(parcels[i].fd), 0);
                assert_false(parcel_is_held(&parcels[i]));
                assert_int_equal(close(parcels[i].sender), 0);
        }
}

/* Also where there is nothing to pack there is a parcel, of which one can see whether it is kept. */
static void test_parcel_of_nothing(_unused_ void **state) {
        struct parcel parcel;
        size_t n = 0;

        assert_int_equal(parcels_pack(NULL, 0, &parcel, 1, NULL), 1);
        assert_int_equal(unpack(&parcel, 1, &n), 0);
        assert_int_equal(n, 0);
        close_parcels(&parcel, 1);
        assert_int_equal(parcels_pack(NULL, 0, &parcel, 0, NULL), 0);
}

static void test_parcels_keep_the_order(_unused_ void **state) {
        int stream = socket(AF_UNIX, SOCK_STREAM, 0), datagram = socket(AF_UNIX, SOCK_DGRAM, 0);
        struct parcel parcels[200];
        int fds[N_PACKED], places[N_PACKED];
        size_t n_parcels, n = 0;

        for (size_t i = 0; i < N_PACKED; i++)
                fds[i] = i % 3 ? stream : datagram;

        n_parcels = parcels_pack(fds, N_PACKED, parcels, ELEMENTSOF(parcels), places);
        assert_true(n_parcels >= 1 && n_parcels <= 5);
        for (size_t i = 0; i < N_PACKED; i++)
                assert_true(places[i] >= (i == 0 ? 0 : places[i - 1]) && (size_t) places[i] < n_parcels);

        assert_int_equal(unpack(parcels, n_parcels, &n), 0);
        assert_int_equal(n, N_PACKED);

        /* They are empty now. */
        n = 0;
        assert_int_equal(unpack(parcels, n_parcels, &n), 0);
        assert_int_equal(n, 0);

        close_parcels(parcels, n_parcels);
        assert_int_equal(close(stream), 0);
        assert_int_equal(close(datagram), 0);
}

/* More than one parcel, stored and given back in any order. */
static void test_parcels_in_another_order(_unused_ void **state) {
        enum { N = 60000 };
        int stream = socket(AF_UNIX, SOCK_STREAM, 0), datagram = socket(AF_UNIX, SOCK_DGRAM, 0);
        int *fds = calloc(N, sizeof(*fds)), *places = calloc(N, sizeof(*places));
        struct parcel parcels[200], reversed[200];
        size_t n_parcels, n = 0, n_packed = 0;

        for (size_t i = 0; i < N; i++)
                fds[i] = i % 3 ? stream : datagram;
        n_parcels = parcels_pack(fds, N, parcels, ELEMENTSOF(parcels), places);
        assert_true(n_parcels >= 2 && n_parcels <= ELEMENTSOF(parcels));
        for (size_t i = 0; i < n_parcels; i++)
                reversed[i] = parcels[n_parcels - 1 - i];
        for (size_t i = 0; i < N; i++)
                n_packed += places[i] != PARCEL_NONE;

        assert_int_equal(unpack(reversed, n_parcels, &n), 0);
        assert_int_equal(n, n_packed);
        close_parcels(parcels, n_parcels);

        /* With room for one parcel only, the first ones are in it. */
        n = 0;
        n_parcels = parcels_pack(fds, N, parcels, 1, places);
        assert_int_equal(n_parcels, 1);
        assert_true(places[0] == 0 && places[N - 1] == PARCEL_NONE);
        assert_int_equal(unpack(parcels, 1, &n), 0);
        assert_true(n >= 1000 && n < N);
        assert_true(places[n - 1] == 0 && places[n] == PARCEL_NONE);
        close_parcels(parcels, 1);

        free(fds);
        free(places);
        assert_int_equal(close(stream), 0);
        assert_int_equal(close(datagram), 0);
}

/* One that the kernel refuses does not take those along that are sent with it. */
static void test_some_cannot_travel(_unused_ void **state) {
        enum { N = 200 };
        int stream = socket(AF_UNIX, SOCK_STREAM, 0), datagram = socket(AF_UNIX, SOCK_DGRAM, 0);
        struct parcel parcels[2];
        int fds[N], places[N];
        size_t n_parcels, n = 0;

        /* The places of those that can are 0, 1, 2 again when the others are left out. */
        for (size_t i = 0, good = 0; i < N; i++)
                fds[i] = i % 5 == 4 || i < 3 ? -1 : good++ % 3 ? stream : datagram;

        n_parcels = parcels_pack(fds, N, parcels, ELEMENTSOF(parcels), places);
        assert_int_equal(n_parcels, 1);
        for (size_t i = 0; i < N; i++)
                assert_int_equal(places[i], fds[i] >= 0 ? 0 : PARCEL_NONE);
        assert_int_equal(unpack(parcels, n_parcels, &n), 0);
        assert_int_equal(n, N - N / 5 - 3);

        close_parcels(parcels, 1);
        assert_int_equal(close(stream), 0);
        assert_int_equal(close(datagram), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_nothing_in_it),
                cmocka_unit_test(test_truncated_at_every_byte),
                cmocka_unit_test(test_every_bit_flipped),
                cmocka_unit_test(test_lies_with_a_good_checksum),
                cmocka_unit_test(test_version_without_epochs),
                cmocka_unit_test(test_unknown_counters_are_passed_over),
                cmocka_unit_test(test_parcel_of_nothing),
                cmocka_unit_test(test_parcels_keep_the_order),
                cmocka_unit_test(test_parcels_in_another_order),
                cmocka_unit_test(test_some_cannot_travel),
        };

        return cmocka_run_group_tests_name("handover", tests, NULL, NULL);
}
