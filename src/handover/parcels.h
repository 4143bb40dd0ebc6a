/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* handover: packs thousands of descriptors into a few, so that a service manager can store them */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* systemd compares each new descriptor in its store with all others, with one system call for each pair. With 5,000
 * connections, this blocks systemd for 10 s (measured, systemd 252), with 50,000 for 100 times as long. And at the next
 * start, the names of all descriptors must fit into one environment variable. Therefore connections are sent through a socket
 * pair whose other end is not read, and this end is stored: the kernel keeps the descriptors in flight, and closes them
 * with the last copy of the parcel. */

/* A parcel, and the end through which it was filled. Both are the caller's. */
struct parcel {
        int fd;
        int sender;
};

/* Pack N descriptors, in their order, into at least one and at most MAX parcels; MAX may be 0. FDS stay the caller's;
 * RET_PLACES[i] is the parcel that has a copy of fds[i], or PARCEL_NONE. RET_PARCELS has room for MAX. Returns the number of
 * parcels. */
size_t parcels_pack(const int fds[], size_t n, struct parcel ret_parcels[], size_t max, int ret_places[]);

#define PARCEL_NONE (-1)

/* Does anyone hold a copy of this parcel? It is asked through the sender, so our own copy counts until it is closed. */
bool parcel_is_held(const struct parcel *parcel);

/* Called with each descriptor, which it takes. */
typedef void (*parcels_fn)(void *userdata, int fd);

/* Unpack N parcels, in any order, and call FN for each descriptor in the order in which it was packed; AFTER_FN is called
 * after every few. A descriptor that is not a parcel is ignored. The parcels stay the caller's, empty. Returns the number of
 * descriptors that were lost because the descriptor table was full. */
size_t parcels_unpack(
        const int parcels[], size_t n, parcels_fn fn, void (*after_fn)(void *userdata), void *userdata);
