/* handover: thousands of descriptors packed into a handful, so that a service manager can store them */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* systemd compares each descriptor it is given to store with every one it has, by one system call a pair: that keeps
 * it from all other work for 10 s with 5,000 connections (measured, systemd 252), and 100 times as long with 50,000.
 * And at the next start the names of all have to fit into one environment variable. So connections are sent through a
 * socket pair of which nobody reads the other end, and that end is what is stored: the kernel holds what is on its
 * way, and lets go of it with the last copy of the parcel. */

/* Pack N descriptors into parcels, MAX of them at most, in their order. FDS stay the caller's; RET_PACKED[i] says
 * whether fds[i] has a copy in a parcel. The parcels' descriptors go to RET_PARCELS, with room for MAX; the caller
 * owns them. Returns how many parcels there are. */
size_t parcels_pack(const int fds[], size_t n, int ret_parcels[], size_t max, bool ret_packed[]);

/* Given each descriptor, which it owns from here on. */
typedef void (*parcels_fn)(void *userdata, int fd);

/* Unpack N parcels, in whatever order they are, and give what is in them to FN in the order in which it was packed;
 * AFTER_FN is called after every few. What is no parcel is passed over. The parcels stay the caller's, empty. Returns
 * how many descriptors were lost because the descriptor table was full. */
size_t parcels_unpack(
        const int parcels[], size_t n, parcels_fn fn, void (*after_fn)(void *userdata), void *userdata);
