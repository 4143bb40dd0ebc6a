/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* handover: the index: the records of connections and bindings for the next process, without descriptors */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/siphash.h"
#include "cache/cache.h"
#include "custody/statistics.h"
#include "wire/buffer.h"

/* The format. Numbers are unsigned and little-endian, nothing is padded. A string is its size in bytes (32 bits) and
 * its bytes, none of which is NUL. Times are in µs, deadlines on CLOCK_BOOTTIME.
 *
 *   offset  bytes
 *        0      8   "scached" LF
 *        8      4   version, 2
 *       12      4   0
 *       16      8   SipHash-1-3 of all that follows, with the key INDEX_KEY
 *       24      8   size of all this, from offset 0
 *       32      8   number of counters
 *       40      8   number of connections
 *       48      8   number of bindings
 *       56      8   start of the interval of statistics, in seconds since 1970
 *       64      8   most destinations at the same time in this interval
 *       72      8   most endpoints
 *       80      8   most connections
 *       88          counters, connections, bindings
 *
 *   counter:     string name, 64 bits total, 64 bits reported so far
 *   connection:  64 bits cookie of the socket (SO_COOKIE), id, deadline, time to live; epoch;
 *                32 bits scope (uid), saved by (uid); strings endpoint, property, farewell
 *   binding:     64 bits id, deadline, time to live, epoch; 32 bits scope (uid); strings destination, property,
 *                endpoint
 *
 * Version 1 had no epochs, and is still read: what it holds is of none.
 *
 * Connections come in the order of their ids, each greater than the one before; bindings in that of their deadlines.
 * Ids are neither 0 nor above INDEX_ID_MAX. Counters are identified by name: an unknown one is ignored, a missing one stays
 * 0. The checksum finds damage; it is not a signature. An index is in memory, so it cannot outlive the boot for which its
 * deadlines are valid. */

#define INDEX_VERSION          UINT32_C(2)
#define INDEX_VERSION_NO_EPOCH UINT32_C(1)
#define INDEX_KEY              ((struct siphash_key){ UINT64_C(0x7363616368656420), UINT64_C(0x696e646578206b65) })
#define INDEX_ID_MAX           (UINT64_MAX / 2)

/* Larger than any index of a cache with reasonable limits. */
#define INDEX_SIZE_MAX ((size_t) 1 << 30)

/* No string is longer: each came in a request (SETTINGS_REQUEST_MAX). */
#define INDEX_STRING_MAX ((size_t) 16 << 20)

struct index_connection {
        uint64_t cookie;
        struct connection_details details; /* without the descriptor */
};

/* Write an index in this order. The first error is kept until index_end(). */
struct index_writer {
        struct wire_buffer buffer;
        uint64_t n_connections;
        uint64_t n_bindings;
        int error;
};

void index_begin(struct index_writer *writer, const struct statistics *statistics);
void index_put_connection(struct index_writer *writer, const struct index_connection *connection);
void index_put_binding(struct index_writer *writer, const struct binding_details *binding);

/* Return the bytes, valid until index_release(). Returns -ENOMEM, -EMSGSIZE. */
int index_end(struct index_writer *writer, struct slice *ret);

void index_release(struct index_writer *writer);

/* An index that was read. It points into the bytes that it was read from. */
struct index {
        bool has_epochs;
        struct statistics statistics;
        uint64_t n_connections;
        uint64_t n_bindings;
        struct slice connections;
        struct slice bindings;
};

/* Open an index, and check every part of it: its bytes are not trusted. Returns -EPROTONOSUPPORT for another version,
 * -EBADMSG if it is damaged. */
int index_open(struct slice bytes, struct index *ret);

/* Take the next record out of REST, which begins as `connections` or `bindings` of INDEX. Returns false at the end. */
bool index_next_connection(const struct index *index, struct slice *rest, struct index_connection *ret);
bool index_next_binding(const struct index *index, struct slice *rest, struct binding_details *ret);
