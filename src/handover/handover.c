/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handover/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/printable.h"
#include "custody/descriptor.h"
#include "handover/goodbye.h"
#include "handover/index.h"
#include "handover/parcels.h"
#include "handover/passed.h"
#include "settings/settings.h"

/* One message takes all parcels. Each holds some ten thousand connections. */
#define PARCELS_MAX 253

/* How long the service manager may take to read our messages. It ignores messages that it reads after our exit. */
#define BARRIER_US (UINT64_C(5) * USEC_PER_SEC)

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* All parked connections and bindings, in the order of the index. */
struct inventory {
        struct connection **connections; /* by id */
        int *fds;
        int *places; /* index of the parcel, or PARCEL_NONE */
        size_t n_connections;
        const struct binding **bindings; /* by deadline */
        size_t n_bindings;
};

static void inventory_deinit(struct inventory *inventory) {
        free(inventory->connections);
        free(inventory->fds);
        free(inventory->places);
        free(inventory->bindings);
}

static void add_connection(void *userdata, struct connection *connection) {
        struct inventory *inventory = userdata;

        inventory->connections[inventory->n_connections++] = connection;
}

static void add_binding(void *userdata, struct binding *binding) {
        struct inventory *inventory = userdata;

        inventory->bindings[inventory->n_bindings++] = binding;
}

static int compare(uint64_t a, uint64_t b) {
        return a < b ? -1 : a > b;
}

static int compare_connections(const void *a, const void *b) {
        return compare((*(struct connection *const *) a)->id, (*(struct connection *const *) b)->id);
}

static int compare_bindings(const void *a, const void *b) {
        return compare((*(const struct binding *const *) a)->deadline.at_us,
                (*(const struct binding *const *) b)->deadline.at_us);
}

static int take_inventory(const struct cache *cache, struct inventory *inventory) {
        const struct cache_counts *counts = cache_counts(cache);
        struct cache_cursor connections = {}, bindings = {};

        inventory->connections = calloc(counts->connections + 1, sizeof(struct connection *));
        inventory->fds = calloc(counts->connections + 1, sizeof(*inventory->fds));
        inventory->places = calloc(counts->connections + 1, sizeof(*inventory->places));
        inventory->bindings = calloc(counts->bindings + 1, sizeof(const struct binding *));
        if (!inventory->connections || !inventory->fds || !inventory->places || !inventory->bindings)
                return -ENOMEM;

        (void) cache_walk_connections(cache, &connections, SIZE_MAX, add_connection, inventory);
        (void) cache_walk_bindings(cache, &bindings, SIZE_MAX, add_binding, inventory);
        qsort(inventory->connections, inventory->n_connections, sizeof(struct connection *),
                compare_connections);
        qsort(inventory->bindings, inventory->n_bindings, sizeof(const struct binding *), compare_bindings);

        for (size_t i = 0; i < inventory->n_connections; i++)
                inventory->fds[i] = inventory->connections[i]->fd;
        return 0;
}

static void put_connection(struct index_writer *writer, const struct connection *connection) {
        struct index_connection record = {
                .details = {
                        .id = connection->id,
                        .scope = connection->endpoint->scope,
                        .saved_by = connection->uid,
                        .endpoint = label_text(connection->endpoint),
                        .property = connection_property(connection),
                        .farewell = connection_farewell(connection),
                        .ttl_us = deadline_ttl(&connection->deadline),
                        .deadline_us = connection->deadline.at_us,
                },
        };
        int r;

        r = descriptor_identify(connection->fd, &record.cookie);
        if (r < 0)
                writer->error = r;
        index_put_connection(writer, &record);
}

static void put_binding(struct index_writer *writer, const struct binding *binding) {
        const struct binding_details record = {
                .id = binding->id,
                .scope = binding->destination->scope,
                .destination = label_text(binding->destination),
                .property = binding_property(binding),
                .endpoint = label_text(binding->endpoint),
                .ttl_us = deadline_ttl(&binding->deadline),
                .deadline_us = binding->deadline.at_us,
        };

        index_put_binding(writer, &record);
}

_Static_assert(INDEX_STRING_MAX >= SETTINGS_REQUEST_MAX, "all that can be parked can be handed over");

/* Make a file in memory that nobody can change. Returns its descriptor, or negative errno. */
static int sealed_file(struct slice bytes) {
        _cleanup_(closep) int fd = -1;

        /* Some machines allow only files in memory that cannot be executed (since Linux 6.3). */
        fd = memfd_create("scached-index", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL)
                fd = memfd_create("scached-index", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;

        for (size_t done = 0; done < bytes.size;) {
                ssize_t n = write(fd, bytes.data + done, bytes.size - done);

                if (n < 0 && errno != EINTR)
                        return -errno;
                done += n > 0 ? (size_t) n : 0;
        }

        if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
                return -errno;
        return steal_fd(&fd);
}

static int make_index(const struct statistics *statistics, const struct inventory *inventory) {
        _cleanup_(index_release) struct index_writer writer = {};
        struct slice bytes;
        int r;

        index_begin(&writer, statistics);
        for (size_t i = 0; i < inventory->n_connections; i++)
                if (inventory->places[i] != PARCEL_NONE)
                        put_connection(&writer, inventory->connections[i]);
        for (size_t i = 0; i < inventory->n_bindings; i++)
                put_binding(&writer, inventory->bindings[i]);

        r = index_end(&writer, &bytes);
        return r < 0 ? r : sealed_file(bytes);
}

/* Return how many parcels may be stored. Since systemd 254, FDSTORE is the number of descriptors that the service manager has
 * room for. */
static size_t parcels_allowed(void) {
        const char *text = getenv("FDSTORE");
        unsigned long n = text ? strtoul(text, NULL, 10) : PARCELS_MAX + 1;

        return n > 1 ? MIN(n - 1, (unsigned long) PARCELS_MAX) : 0; /* one is for the index */
}

static void clear_store(struct notify *notify) {
        (void) notify_say(notify, "FDSTOREREMOVE=1\nFDNAME=" PASSED_INDEX, NULL, 0);
        (void) notify_say(notify, "FDSTOREREMOVE=1\nFDNAME=" PASSED_PARCEL, NULL, 0);
}

static int store_index(const struct handover *handover, const struct inventory *inventory) {
        _cleanup_(closep) int fd = -1;

        fd = make_index(handover->statistics, inventory);
        return fd < 0 ? fd
                      : notify_say(handover->notify, "FDSTORE=1\nFDPOLL=0\nFDNAME=" PASSED_INDEX, &fd, 1);
}

/* FDPOLL=0: the other end of each parcel may close before it is taken over, and the service manager must not drop it for that. */
static int store_parcels(struct notify *notify, const struct parcel parcels[], size_t n) {
        int fds[PARCELS_MAX];

        for (size_t i = 0; i < n; i++)
                fds[i] = parcels[i].fd;
        return n > 0 ? notify_say(notify, "FDSTORE=1\nFDPOLL=0\nFDNAME=" PASSED_PARCEL, fds, n) : 0;
}

/* Close our copies. If the service manager has refused a parcel, this closes the descriptors in it, which may wait. */
static void close_parcels(struct disposal *disposal, struct parcel parcels[], size_t n) {
        for (size_t i = 0; i < n; i++)
                disposal_close(disposal, 0, DISPOSAL_SOCKET, steal_fd(&parcels[i].fd));
        disposal_settle_of(disposal, 0, DISPOSAL_SOCKET);
}

static void close_parcel(void *userdata, int fd) {
        disposal_close(userdata, 0, DISPOSAL_SOCKET, fd);
}

/* A service manager has its own mind about what it stores, and before systemd 254 it says nothing of its limit. What is in a parcel
 * that it has closed is not kept. Returns the number of parcels that it holds. */
static size_t leave_out_refused(struct inventory *inventory, const struct parcel parcels[], size_t n) {
        bool held[PARCELS_MAX];
        size_t n_held = 0;

        for (size_t i = 0; i < n; i++) {
                held[i] = parcel_is_held(&parcels[i]);
                n_held += held[i];
        }
        for (size_t i = 0; i < inventory->n_connections; i++)
                if (inventory->places[i] != PARCEL_NONE && !held[inventory->places[i]])
                        inventory->places[i] = PARCEL_NONE;
        return n_held;
}

/* Store everything in the inventory, and see what became of it. The index comes before the parcels: it is stored if any of them
 * is. */
static int store(const struct handover *handover, struct inventory *inventory, struct parcel parcels[],
        size_t n_parcels) {
        size_t n_held;
        int r;

        r = store_index(handover, inventory);
        if (r >= 0)
                r = store_parcels(handover->notify, parcels, n_parcels);
        if (r >= 0)
                r = notify_settle(handover->notify, BARRIER_US);
        close_parcels(handover->disposal, parcels, n_parcels);
        if (r < 0)
                return r;

        n_held = leave_out_refused(inventory, parcels, n_parcels);
        if (n_held == n_parcels)
                return 0;

        /* The place of this index is free for one without the others. */
        (void) notify_say(handover->notify, "FDSTOREREMOVE=1\nFDNAME=" PASSED_INDEX, NULL, 0);
        r = n_held > 0 ? store_index(handover, inventory) : -ENOSPC;
        return r < 0 ? r : notify_settle(handover->notify, BARRIER_US);
}

/* What is stored is out of our hands, or, without IS_KEPT, a service manager that has not answered may have copies of it.
 * Returns how many connections are out of our hands. */
static size_t leave_behind(const struct handover *handover, struct inventory *inventory,
        const struct parcel parcels[], size_t n_parcels, bool is_kept) {
        size_t n = 0;

        for (size_t i = 0; i < inventory->n_connections; i++)
                if (inventory->places[i] != PARCEL_NONE)
                        inventory->connections[n++] = inventory->connections[i];

        goodbye_leave(handover->journal, parcels, n_parcels, inventory->connections, n, is_kept);
        if (!is_kept)
                return 0;
        for (size_t i = 0; i < n; i++)
                custody_release(handover->custody, inventory->connections[i]);
        return n;
}

/* Store what is in the inventory. RET_KEPT is how many connections are out of our hands after that. */
static int save(const struct handover *handover, struct inventory *inventory, size_t *ret_kept) {
        struct parcel parcels[PARCELS_MAX];
        size_t n_parcels;
        int r;

        *ret_kept = 0;
        r = take_inventory(handover->cache, inventory);
        if (r < 0)
                return r;

        n_parcels = parcels_pack(
                inventory->fds, inventory->n_connections, parcels, parcels_allowed(), inventory->places);
        r = store(handover, inventory, parcels, n_parcels);
        *ret_kept = leave_behind(handover, inventory, parcels, n_parcels, r >= 0);
        if (r < 0) {
                notify_take_back(handover->notify, close_parcel, handover->disposal);
                clear_store(handover->notify);
        }
        for (size_t i = 0; i < n_parcels; i++)
                closep(&parcels[i].sender);
        return r;
}

void handover_save(const struct handover *handover) {
        const struct cache_counts *counts = cache_counts(handover->cache);
        _cleanup_(inventory_deinit) struct inventory inventory = {};
        size_t n_kept;
        int r;

        if (!notify_is_heard(handover->notify) || counts->connections + counts->bindings == 0)
                return;

        r = save(handover, &inventory, &n_kept);
        if (r < 0)
                journal_say(handover->journal, NOT_KEPT, NULL,
                        "Could not keep %zu parked connection%s for the next start: %s.",
                        (size_t) counts->connections, plural(counts->connections),
                        r == -ENOSPC ? "the service manager stores nothing for this unit" : strerror(-r));
        else
                journal_say(handover->journal, KEPT, NULL,
                        "Kept %zu connection%s and %zu binding%s for the next start, could not keep %zu.",
                        n_kept, plural(n_kept), inventory.n_bindings, plural(inventory.n_bindings),
                        (size_t) counts->connections);
}

/* A record of the index, found by the cookie of its socket. */
struct record {
        uint64_t cookie;
        struct slice bytes; /* the rest of the index, from this record on */
        bool taken;
};

struct taking {
        const struct handover *handover;
        const struct index *index;
        struct record *records; /* sorted by cookie, then by id if a socket was saved more than once */
        size_t n_records;
        size_t n_taken;
        size_t n_closed;
};

static int compare_records(const void *a, const void *b) {
        const struct record *x = a, *y = b;

        return x->cookie != y->cookie ? compare(x->cookie, y->cookie)
                                      : compare((uintptr_t) x->bytes.data, (uintptr_t) y->bytes.data);
}

static int make_records(struct taking *taking, const struct index *index) {
        struct slice rest = index->connections, bytes = rest;
        struct index_connection connection;

        taking->records = calloc(index->n_connections + 1, sizeof(*taking->records));
        if (!taking->records)
                return -ENOMEM;

        for (; index_next_connection(index, &rest, &connection); bytes = rest)
                taking->records[taking->n_records++] = (struct record){ connection.cookie, bytes, false };
        qsort(taking->records, taking->n_records, sizeof(*taking->records), compare_records);
        return 0;
}

static struct record *find_record(const struct taking *taking, uint64_t cookie) {
        size_t low = 0, high = taking->n_records;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (taking->records[middle].cookie < cookie)
                        low = middle + 1;
                else
                        high = middle;
        }

        for (; low < taking->n_records && taking->records[low].cookie == cookie; low++)
                if (!taking->records[low].taken)
                        return &taking->records[low];
        return NULL;
}

static int take_connection(struct taking *taking, int fd) {
        struct index_connection connection;
        struct record *record;
        struct slice bytes;
        uint64_t cookie;
        int r;

        r = descriptor_identify(fd, &cookie);
        if (r < 0)
                return r;

        record = find_record(taking, cookie);
        if (!record)
                return -ENOENT;
        record->taken = true;

        bytes = record->bytes;
        (void) index_next_connection(taking->index, &bytes, &connection);
        connection.details.fd = fd;
        connection.details.cookie = cookie;
        return custody_save(taking->handover->custody, &connection.details);
}

static void on_descriptor(void *userdata, int fd) {
        struct taking *taking = userdata;

        if (take_connection(taking, fd) < 0) {
                disposal_close(taking->handover->disposal, 0, DISPOSAL_PASSED, fd);
                taking->n_closed++;
        } else
                taking->n_taken++;
}

/* The limits may be lower than before: close the connections that were evicted, so that the next ones find free
 * descriptors. */
static void after_descriptors(void *userdata) {
        struct taking *taking = userdata;

        custody_hurry(taking->handover->custody, true);
        while (custody_let_go(taking->handover->custody))
                ;
        custody_hurry(taking->handover->custody, false);
        disposal_settle(taking->handover->disposal);
}

static int take_bindings(struct cache *cache, const struct index *index, size_t *ret_taken) {
        struct slice rest = index->bindings;
        struct binding_details binding;
        int r = 0;

        for (*ret_taken = 0; r >= 0 && index_next_binding(index, &rest, &binding); (*ret_taken)++)
                r = cache_save_destination(cache, &binding);
        return r;
}

/* Map the index into memory. It must be sealed, because a file that shrinks while it is mapped would crash us. */
static int map_index(int fd, struct slice *ret) {
        struct stat st;
        void *data;
        int seals;

        seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0)
                return -EBADMSG;
        if (st.st_size <= 0 || (uintmax_t) st.st_size > INDEX_SIZE_MAX)
                return -EBADMSG;

        data = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
                return -errno;

        *ret = (struct slice){ data, (size_t) st.st_size };
        return 0;
}

static void unmap_index(const struct slice *bytes) {
        if (bytes->data)
                (void) munmap((void *) bytes->data, bytes->size);
}

static const char *refusal(int error) {
        switch (error) {
        case -EPROTONOSUPPORT:
                return "it was written by another version";
        case -EBADMSG:
                return "it is damaged";
        case -ENODATA:
                return "it is missing";
        default:
                return strerror(-error);
        }
}

/* Read the index, and sort its records for find_record(). */
static int open_index(struct taking *taking, struct slice bytes, struct index *ret) {
        int r;

        r = index_open(bytes, ret);
        return r < 0 ? r : make_records(taking, ret);
}

static void say_taken(const struct taking *taking, size_t n_bindings, size_t n_lost, int error) {
        /* Some had to give way to others at once: limits have become lower. */
        size_t n_parked = (size_t) cache_counts(taking->handover->cache)->connections;
        char evicted[sizeof(", evicted 18446744073709551615")] = "";

        if (n_parked < taking->n_taken)
                (void) snprintf(evicted, sizeof(evicted), ", evicted %zu", taking->n_taken - n_parked);
        journal_say(taking->handover->journal, TAKEN_OVER, NULL,
                "Restored %zu connection%s and %zu binding%s%s, lost %zu%s%s.", n_parked, plural(n_parked),
                n_bindings, plural(n_bindings), evicted, n_lost, error < 0 ? ": " : "",
                error < 0 ? strerror(-error) : "");
}

void handover_take(const struct handover *handover, struct passed *passed) {
        _cleanup_(unmap_index) struct slice bytes = {};
        struct index index = {};
        struct taking taking = { .handover = handover, .index = &index };
        size_t n_bindings = 0, n_lost;
        int r, q = 0;

        if (!passed_has_stored(passed))
                return;

        /* First of all, so that no later process gets these descriptors again, even if this one crashes. */
        clear_store(handover->notify);

        r = passed->index_fd < 0 ? -ENODATA : map_index(passed->index_fd, &bytes);
        if (r >= 0)
                r = open_index(&taking, bytes, &index);
        if (r >= 0) {
                *handover->statistics = index.statistics;
                statistics_settle(&handover->statistics->total);
        }

        n_lost = parcels_unpack(
                passed->parcel_fds, passed->n_parcels, on_descriptor, after_descriptors, &taking);
        n_lost += taking.n_closed;
        /* Connections that the service manager has dropped meanwhile have a record, too. */
        n_lost = MAX(n_lost, taking.n_records - taking.n_taken);
        if (r >= 0)
                q = take_bindings(handover->cache, &index, &n_bindings);
        statistics_note(handover->statistics, cache_counts(handover->cache));
        free(taking.records);

        if (r >= 0)
                goodbye_cancel(passed->parcel_fds, passed->n_parcels);
        if (r < 0)
                journal_say(handover->journal, INDEX_REFUSED, NULL,
                        "Closed %zu connection%s kept over the restart: the index cannot be used (%s).",
                        n_lost, plural(n_lost), refusal(r));
        else
                say_taken(&taking, n_bindings, n_lost, q);
}
